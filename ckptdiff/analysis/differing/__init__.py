"""What two checkpoints differ in: which tensors belong together, and by how much they differ."""
