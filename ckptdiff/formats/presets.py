"""Which of ModelOpt's presets writes which algorithm of a quantization config."""

from __future__ import annotations

_PRESETS = {
    "FP8": "FP8_DEFAULT_CFG",
    "FP8_PER_CHANNEL_PER_TOKEN": "FP8_PER_CHANNEL_PER_TOKEN_CFG",
    "FP8_PB_WO": "FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG",
    "W8A8_SQ_PER_CHANNEL": "INT8_DEFAULT_CFG",
    "W8A16": "INT8_WEIGHT_ONLY_CFG",
    "W4A16_AWQ": "INT4_AWQ_CFG",
    "W4A8_AWQ": "W4A8_AWQ_BETA_CFG",
    "NVFP4": "NVFP4_DEFAULT_CFG",
    "NVFP4_AWQ": "NVFP4_AWQ_LITE_CFG",
    "W4A16_NVFP4": "W4A16_NVFP4_CFG",
    "W4A8_NVFP4_FP8": "W4A8_NVFP4_FP8_CFG",
    "MXFP8": "MXFP8_DEFAULT_CFG",
    "MXFP4": "MXFP4_DEFAULT_CFG",
    "W4A8_MXFP4_FP8": "W4A8_MXFP4_FP8_CFG",
}
_SMOOTHED = {"W8A8_SQ_PER_CHANNEL": "INT8_SMOOTHQUANT_CFG"}
_CACHES = {"FP8": "FP8_KV_CFG", "NVFP4": "NVFP4_KV_CFG"}


def preset_of(algorithm: str, *, smoothed: bool = False) -> str | None:
    """The preset that exports say this algorithm of; None for one that is not known.

    `smoothed`: the export has pre_quant_scales, by which alone SmoothQuant's is told apart.

    >>> preset_of("fp8_pb_wo")
    'FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG'
    """
    name = algorithm.upper()
    return _SMOOTHED.get(name) if smoothed and name in _SMOOTHED else _PRESETS.get(name)


def cache_preset_of(algorithm: str) -> str | None:
    """The preset of a KV cache's algorithm; None for one that is not known."""
    return _CACHES.get(algorithm.upper())
