"""The terminal app. It looks at reports of the api and never at a checkpoint itself.

The only package that imports Textual; `ckptdiff.cli.tui` imports it when the command runs.
"""
