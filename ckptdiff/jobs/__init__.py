"""The parent side of long work: read, hash, and later spawn, verify and rename."""
