"""Evaluation: retrieval metrics from codes, results, plots, contact sheets."""
