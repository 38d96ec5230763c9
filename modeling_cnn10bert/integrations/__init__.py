"""Other libraries that our models are used with: one file per library, each of which is an extra of the package."""
