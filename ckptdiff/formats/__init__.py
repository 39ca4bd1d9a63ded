"""Bytes to records: one file a format. Nothing here opens a network connection."""
