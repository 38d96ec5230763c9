"""Other libraries that our models are used with, one file per library."""
