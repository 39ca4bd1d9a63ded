"""New checkpoints on paper: what is taken from where, in which files, with which configs."""
