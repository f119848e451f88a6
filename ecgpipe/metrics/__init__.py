"""Scores of predictions: single-label and multi-label."""
