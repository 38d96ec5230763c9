"""The augmentations of the paper (sections 4 and 5), one file a term; training only."""
