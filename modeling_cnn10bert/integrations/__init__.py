"""Thin adapters to other libraries, one file per library."""
