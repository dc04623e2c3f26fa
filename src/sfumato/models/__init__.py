"""Which models there are: the bundled one, and those that models.toml or model_names.txt add (docs/models.md)."""
