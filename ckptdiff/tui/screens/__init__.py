"""One mode a file, and the pages that open on top of a mode."""
