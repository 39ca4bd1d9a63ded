"""Digests: of tensors, of their parts, of whole checkpoints, with a value scan on the way."""
