"""Bridges to libraries that are extras of the package, one file each."""
