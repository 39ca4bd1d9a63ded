"""The child: an order comes in, an export comes into being, and what it took goes out."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from ckptdiff.errors import ChildError, CkptdiffError
from ckptdiff.records.export import Calibration, ExportOrder, Preset
from ckptdiff.records.probe import Prompt
from ckptdiff.runtime.child import Channel, keeping_all, serve
from ckptdiff.runtime.export.progress import Progress


def main(channel: Channel) -> None:
    """Carry out the order that the parent sends."""
    message = channel.receive()
    progress = Progress(channel.sink)
    try:
        # Imported here, because that takes seconds that somebody may want to hear of.
        with progress.during("import", None, "files"), keeping_all():
            from ckptdiff.runtime.export import exporting
        order = _order(message)
        _seed(order.calibration.seed)
        result = exporting.carry_out(order, progress)
    except CkptdiffError:
        raise
    except Exception as error:
        from ckptdiff.runtime.failures import is_out_of_memory, is_out_of_room

        if is_out_of_memory(error):
            raise _no_memory(progress.stage) from error
        if is_out_of_room(error):
            raise CkptdiffError(
                f"the disk is full (in the stage {progress.stage})",
                "Nothing was changed. Make room, or name --out on another disk.",
            ) from error
        raise RuntimeError(
            f"ModelOpt {version('nvidia-modelopt')} does not {progress.stage} this model: "
            f"{type(error).__name__}: {error}"
        ) from error
    channel.send("result", **asdict(result))


def _seed(seed: int) -> None:
    import torch
    import transformers

    transformers.set_seed(seed)
    # Not every operation has such a kernel; where one has not, torch says so in the log.
    torch.use_deterministic_algorithms(True, warn_only=True)
    # No result depends on memory that nobody has written to; filling it takes time.
    vars(torch.utils.deterministic)["fill_uninitialized_memory"] = False


def _no_memory(stage: str) -> ChildError:
    import torch

    where = "the GPU" if torch.cuda.is_available() else "this machine"
    return ChildError(
        f"{where} has too little memory for this model (in the stage {stage})",
        'Try a smaller --calib-length, more GPUs, or the CPU by CUDA_VISIBLE_DEVICES="".',
    )


def _order(message: dict[str, Any]) -> ExportOrder:
    """The order as the parent had it, from JSON."""
    fields = {key: value for key, value in message.items() if key != "kind"}
    calibration = dict(fields.pop("calibration"))
    rows = tuple(
        Prompt(row["text"], tuple(row["messages"]), tuple(row["images"]))
        for row in calibration.pop("rows")
    )
    numbers = tuple(calibration.pop("numbers", ()))
    presets = tuple(
        Preset(each["name"], None if each["modules"] is None else tuple(each["modules"]))
        for each in fields.pop("presets")
    )
    chosen = Calibration(rows=rows, numbers=numbers, **calibration)
    return ExportOrder(**fields, presets=presets, calibration=chosen)


if __name__ == "__main__":
    serve(main)
