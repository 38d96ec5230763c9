"""Augmentations of the paper (sections 4 and 5), one file per method; for training only."""
