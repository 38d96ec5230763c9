"""The page: type a sound or drop in a recording, hear and see what an index holds of it."""
