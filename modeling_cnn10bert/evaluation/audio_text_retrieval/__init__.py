"""Folder for `evaluate.load`; its script imports nothing from this package, so it can be published as it is."""
