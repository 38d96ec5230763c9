"""Web page for searching an index by a text or a recording, and hearing and seeing the results."""
