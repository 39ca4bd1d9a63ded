"""The command line: one command a file, `output.py` writes stdout, `console.py` stderr."""
