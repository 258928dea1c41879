"""Backbones: architectures, weights, and the cache of what a frozen one computes."""
