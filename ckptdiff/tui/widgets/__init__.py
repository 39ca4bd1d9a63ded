"""Widgets that draw lines from plain data; none of them knows where the data comes from."""
