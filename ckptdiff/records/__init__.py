"""Frozen dataclasses: what the rest of the package passes around. No behaviour beyond
small derived properties, no IO, and no imports from any other part of the package."""
