"""The linter. One rule a file, its docstring the manual; `registry.py` lists them all."""
