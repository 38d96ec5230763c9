"""The command `cnn10bert`."""
