"""The formats of the export corpus: ModelOpt's presets by the short names of the corpus."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """A ModelOpt preset and what a manifest says about it.

    `visual` formats quantize Qwen2.5-VL's vision tower as well, against the preset's exclusion.
    `awq` formats search scales, which ModelOpt cannot do for fused experts.
    `mixed_preset` takes every second recipe; `kv_preset` adds a quantized KV cache.
    """

    preset: str
    bits: float
    visual: bool = False
    awq: bool = False
    mixed_preset: str | None = None
    mixed_bits: float = 0.0
    kv_preset: str | None = None

    @property
    def presets(self) -> tuple[str, ...]:
        return tuple(name for name in (self.preset, self.mixed_preset) if name)


FORMATS = {
    "fp8": Format("FP8_DEFAULT_CFG", 8.0, visual=True),
    "fp8_pcpt": Format("FP8_PER_CHANNEL_PER_TOKEN_CFG", 8.0, visual=True),
    "fp8_pb_wo": Format("FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG", 8.0, visual=True),
    "fp8_kv": Format("FP8_DEFAULT_CFG", 8.0, kv_preset="FP8_KV_CFG"),
    "int8": Format("INT8_DEFAULT_CFG", 8.0, visual=True),
    "int8_sq": Format("INT8_SMOOTHQUANT_CFG", 8.0),
    "int8_wo": Format("INT8_WEIGHT_ONLY_CFG", 8.0, visual=True),
    "int4_awq": Format("INT4_AWQ_CFG", 4.0, awq=True),
    "w4a8_awq": Format("W4A8_AWQ_BETA_CFG", 4.0, awq=True),
    "nvfp4": Format("NVFP4_DEFAULT_CFG", 4.5),
    "w4a16_nvfp4": Format("W4A16_NVFP4_CFG", 4.5),
    "mxfp8": Format("MXFP8_DEFAULT_CFG", 8.25),
    "mxfp4": Format("MXFP4_DEFAULT_CFG", 4.25),
    "mixed": Format("FP8_DEFAULT_CFG", 8.0, mixed_preset="NVFP4_DEFAULT_CFG", mixed_bits=4.5),
    "nvfp4_awq": Format("NVFP4_AWQ_LITE_CFG", 4.5, awq=True),
    "w4a8_mxfp4_fp8": Format("W4A8_MXFP4_FP8_CFG", 4.25),
    "w4a8_nvfp4_fp8": Format("W4A8_NVFP4_FP8_CFG", 4.25),
}
EXTRAS = ("nvfp4_awq", "w4a8_mxfp4_fp8", "w4a8_nvfp4_fp8")
