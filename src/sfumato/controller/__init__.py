"""Decides how many workers each model has, and which models hold the places there are."""
