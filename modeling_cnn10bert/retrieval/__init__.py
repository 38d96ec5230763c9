"""Search your own sounds: an index of embeddings, kept up to date with the folders it was made of."""
