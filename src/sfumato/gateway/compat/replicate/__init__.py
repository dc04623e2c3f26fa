"""Replicate's HTTP API: predictions, files, models."""
