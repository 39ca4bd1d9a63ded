"""Quantization arithmetic in numpy, one file a format family: codes to values and back.

Numbers in, numbers out: arrays of whole rows and their scales. Which tensors belong together,
where their bytes come from and what a difference means are decided elsewhere. `registry` finds
the functions for a layout of ModelOpt; `compressed`, `deepseek`, `gptq`, `awq` and `gpt_oss` know
the formats of other tools, which are dequantised only.
"""
