"""Quantized weights recomputed from their base: what can be, how, and what disagrees."""
