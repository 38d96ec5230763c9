"""Thin connections to libraries that are optional, one file per library."""
