"""Serving: exported encoders, and their client."""
