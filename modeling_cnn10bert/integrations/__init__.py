"""Thin connections to other tools, one file each."""
