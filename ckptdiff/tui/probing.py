"""What a probe of the app is asked for, as records, as a call and as the words of a command.

Words and call are made from one dictionary, so that they cannot say different things. Nothing is
run and nothing drawn in here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ckptdiff.tui.text import whole_number

if TYPE_CHECKING:
    from ckptdiff.records.probe import Activations, ProbeReport
    from ckptdiff.tui.state import State

Words = tuple[str, ...]
# Why a probe has no result that somebody stopped.
STOPPED = "stopped by you"
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class ProbeForm(NamedTuple):
    """What somebody chose. `reference` is a scheme's id, "" for the base; `prompts` a file, ""
    for the built-in ones; `limit` None: all of them."""

    reference: str = ""
    device: str = "auto"
    dtype: Dtype = "auto"
    prompts: str = ""
    limit: int | None = None
    activations: Activations = "off"
    perplexity: bool = False


class Probed(NamedTuple):
    """A probe that was started: what it was asked for, and what is known of it by now.

    `job` is the bridge's name for it, `names` are the schemes as the report calls them.
    `problem` is why it came to nothing, or did not come to its end. `stale`: files changed
    since.
    """

    job: str
    asked: Mapping[str, Any]
    names: tuple[str, ...]
    report: ProbeReport | None = None
    running: bool = True
    problem: str = ""
    stale: bool = False

    @property
    def complete(self) -> bool:
        """Whether the report is all that there will be of it."""
        return self.report is not None and not self.running and not self.problem


def form_with(form: ProbeForm, name: str, value: str) -> ProbeForm:
    """The form with another value of one field. Raises `ValueError` for a limit that is none."""
    if name == "limit":
        return form._replace(limit=whole_number(value, 1))
    if name == "perplexity":
        return form._replace(perplexity=value == "yes")
    return form._replace(**{name: value})  # type: ignore[arg-type]


def subjects(state: State) -> tuple[str | None, tuple[str, ...]]:
    """The reference, and what is compared with it: the marked schemes, else all of them. Ids;
    the reference is None while there is none."""
    ids = [row.id for row in state.schemes]
    reference = state.form.reference or state.base_id
    if reference not in (*ids, state.base_id):
        reference = None
    marked = [id for id in ids if id in state.marked and id != reference]
    return reference, tuple(marked or (id for id in ids if id != reference))


def names(state: State) -> tuple[str, ...]:
    """What is compared, as the report calls it: schemes of a sweep by their ids, others by
    the paths that were named."""
    _, others = subjects(state)
    return others if _whole(state) else tuple(map(state.path_of, others))


def asked(state: State) -> dict[str, Any] | None:
    """The arguments of `api.probe` for what the form says, None while it has no subjects."""
    reference, others = subjects(state)
    if reference is None or not others:
        return None
    form = state.form
    found: dict[str, Any]
    if _whole(state):
        found = {"sweep": state.options.root, **_base(state)}
    else:
        found = {"reference": state.path_of(reference), "others": names(state)}
    chosen = {
        "device": form.device,
        "dtype": form.dtype,
        "prompts": form.prompts,
        "limit": form.limit,
        "activations": form.activations,
        "perplexity": form.perplexity,
    }
    defaults = {"device": "auto", "dtype": "auto", "activations": "off"}
    return found | {
        name: value for name, value in chosen.items() if value and value != defaults.get(name)
    }


def words(arguments: Mapping[str, Any] | None) -> Words | None:
    """The command that runs the same probe."""
    if arguments is None:
        return None
    found = ["probe"]
    if "reference" in arguments:
        found += [arguments["reference"], *arguments["others"]]
    for name, value in arguments.items():
        if name not in ("reference", "others"):
            found += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return tuple(found)


def _whole(state: State) -> bool:
    """Whether it is the whole sweep against its base, which the command has one option for."""
    reference, others = subjects(state)
    return reference == state.base_id and len(others) == len(state.schemes)


def _base(state: State) -> dict[str, str]:
    """The base as the command must be told of it: it reads no settings."""
    base = state.report.base if state.report else None
    if base is None or base.found_by == "search":
        return {}
    return {"base": state.path_of(base.id)}


@cache
def _missing() -> str | None:
    from ckptdiff import api

    return api.probe_needs()


def no_run(state: State) -> str | None:
    """Why no probe can be started now, None when one can."""
    if state.mode != "probe":
        return "a probe is run in Probe (5)"
    if state.probed is not None and state.probed.running:
        return "a probe is running; x cancels it"
    if (missing := _missing()) is not None:
        return missing
    if state.report is None:
        return state.problem or "the first look is not over"
    reference, others = subjects(state)
    if reference is None:
        return f"no base: {state.report.why_no_base}; or choose another reference above"
    return None if others else "there is no scheme to compare with the reference"
