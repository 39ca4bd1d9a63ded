"""Records -> bytes. One format a file; no report knows of terminals, files or exit codes."""
