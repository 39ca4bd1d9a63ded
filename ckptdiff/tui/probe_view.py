"""Probes -> fields, rows and lines: what mode Probe shows, as plain functions.

Numbers are those of the report, never worked out again; names and prompts are escaped where they
are drawn.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ckptdiff.records.wording import plural
from ckptdiff.report.text_probe import share_of
from ckptdiff.tui.probing import STOPPED, Probed, asked, no_run, subjects, words
from ckptdiff.tui.store import Column, Store, Value
from ckptdiff.tui.text import Line, fields, fit, labels, texts, told_apart
from ckptdiff.tui.widgets.curve import curve
from ckptdiff.tui.widgets.form import Field

if TYPE_CHECKING:
    from ckptdiff.records.probe import Interval, ProbeReport, ProbeResult
    from ckptdiff.tui.state import State

_LIMITS = ("", "8", "32", "128")
_NOISE = "KL is below the noise floor: not told from the reference"


def form_fields(state: State) -> list[Field]:
    """What can be chosen, as the form shows it."""
    form = state.form
    ids = [row.id for row in state.schemes]
    reference, others = subjects(state)
    marked = any(id in others for id in state.marked)
    which = "marked" if marked else "the whole sweep" if len(others) == len(ids) else "the others"
    base = ("",) if state.base_id is not None else ()
    return [
        Field("reference", "reference", form.reference,
              "none found: choose one" if reference is None else state.label(reference),
              (*base, *ids)),
        Field("schemes", "schemes", "", f"{len(others):,} ({which})", typed=True),
        Field("prompts", "prompts", form.prompts, form.prompts or "built in", ("",), typed=True),
        Field("limit", "limit", str(form.limit or ""), f"the first {form.limit:,}"
              if form.limit else "all prompts", _LIMITS, typed=True),
        Field("device", "device", form.device, form.device, ("auto", "cpu", "cuda"), typed=True),
        Field("dtype", "dtype", form.dtype, form.dtype,
              ("auto", "float32", "bfloat16", "float16")),
        Field("activations", "activations", form.activations, {
              "off": "off", "static": "static: inputs rounded"}[form.activations],
              ("off", "static")),
        Field("perplexity", "perplexity", "yes" if form.perplexity else "no",
              "yes" if form.perplexity else "no", ("no", "yes")),
    ]  # fmt: skip


def probe_store(state: State) -> Store:
    """A row for each scheme that is, or would be, compared with the reference."""
    probed = state.probed
    names = probed.names if probed else subjects(state)[1]
    report = probed.report if probed else None
    found = {result.scheme: result for result in report.results} if report else {}
    rows = [found.get(name) for name in names]
    doing = probed.job if probed is not None and probed.running else ""
    shares = {w.stage: w.done / (w.total or 1) for w in state.work if w.job == doing}
    standing = [_standing(state, name, row, shares) for name, row in zip(names, rows, strict=True)]
    short = labels(names, None)

    def name(row: int, width: int) -> Line:
        return [(told_apart(names[row], short[names[row]], width), "")]

    def of(value: Callable[[ProbeResult], Value]) -> list[Value]:
        return [None if row is None else value(row) for row in rows]

    def spread(row: int, width: int) -> Line:
        result = rows[row]
        text = "-" if result is None else f"{result.kl.lo:.1e}-{result.kl.hi:.1e}"
        return [(fit(text, width, "right"), "dim")]

    def kl_tone(row: int) -> str:
        result = rows[row]
        return "warning" if result is not None and result.indistinguishable else ""

    perplexity = (
        Column("perplexity", "ppl", of(lambda r: r.perplexity), 8, "right", text=_figure),
        Column("ratio", "ppl ratio", of(lambda r: r.perplexity_ratio), 9, "right",
               text=partial(_fixed, digits=4), wide_only=True),
    )  # fmt: skip
    asked_for = any(row is not None and row.perplexity is not None for row in rows)
    columns = (
        Column("scheme", "scheme", names, as_given=True, most=60, paint=name,
               faults=frozenset(n for n, (_, tone) in enumerate(standing)
                                if tone == "warning")),
        Column("standing", "", [text for text, _ in standing], 9,
               tone=lambda row: standing[row][1]),
        Column("coverage", "modules", of(lambda r: share_of(r)), 7, "right",
               paint=_covers(state, names, rows)),
        Column("kl", "KL", of(lambda r: r.kl.mean), 7, "right", text=_small, tone=kl_tone),
        Column("interval", "95 %", of(lambda r: r.kl.hi - r.kl.lo), 15, "right", paint=spread),
        *(perplexity if asked_for else ()),
        Column("mse", "MSE", of(lambda r: r.mse.mean), 7, "right", text=_small),
        Column("top1", "top-1", of(lambda r: r.top1), 5, "right", text=_share),
        Column("top5", "top-5", of(lambda r: r.top5), 5, "right", text=_share),
        Column("reverse", "reverse", of(lambda r: r.reverse_kl.mean), 8, "right", text=_small,
               wide_only=True),
        Column("js", "JS", of(lambda r: r.js.mean), 8, "right", text=_small, wide_only=True),
    )  # fmt: skip
    facets = {"status": [_WORDS[text[:1]] for text, _ in standing]}
    return Store(columns, names, facets)


# The words of `status:` by the mark in front of what a row says.
_WORDS = {"=": "identical", "~": "indistinguishable", "?": "unread", "✓": "ok", "…": "pending",
          "-": "pending"}  # fmt: skip


def _standing(
    state: State, name: str, result: ProbeResult | None, doing: Mapping[str, float]
) -> tuple[str, str]:
    """How it is with one scheme, behind a mark, and the tone of that."""
    probed = state.probed
    if result is not None:
        if result.identical_to is not None:
            short = labels(probed.names if probed else (), None)
            return f"= {short.get(result.identical_to, result.identical_to)}", "warning"
        return ("~ noise", "warning") if result.indistinguishable else ("✓ done", "ok")
    if probed is None:
        return "-", "dim"
    report = probed.report
    if report is not None and any(item.path == name for item in report.unread):
        return "? unread", "warning"
    if not probed.running:
        return "-", "dim"
    share = doing.get(f"probe {name}")
    return ("…", "dim") if share is None else (f"… {share:.0%}", "accent")


def _covers(
    state: State, names: Sequence[str], rows: Sequence[ProbeResult | None]
) -> Callable[[int, int], Line]:
    """Modules quantized, from the report, else from what the sweep showed."""
    held = {row.id: row.actual for row in state.schemes}

    def paint(row: int, width: int) -> Line:
        result, actual = rows[row], held.get(names[row])
        known = result.coverage if result is not None else actual
        text = "-" if known is None else f"{known.quantized}/{known.total}"
        return [(fit(text, width, "right"), "")]

    return paint


def verdict_parts(probed: Probed) -> tuple[str, str, str]:
    """The word, its tone and the sentence of the verdict line."""
    report = probed.report
    sentence = shortened(report.verdict, probed.names) if report and report.results else ""
    if probed.running:
        so_far = f"so far: {sentence}" if sentence else "nothing is computed yet"
        return " … PROBE ", "verdict-open", so_far
    if report is None or probed.problem:
        why = probed.problem.partition("\n")[0]
        return " ! PROBE ", "verdict-open", f"{why}; until then: {sentence}" if sentence else why
    if report.unread:
        return " ? NOT COMPLETE ", "verdict-open", sentence or report.verdict
    same = any(r.identical_to is not None or r.indistinguishable for r in report.results)
    return " PROBE ", "verdict-open" if same else "verdict-pass", sentence


def shortened(sentence: str, names: Sequence[str]) -> str:
    """A sentence with the short names of schemes, so that its end is on the screen too."""
    short = labels(names, None)
    longest_first = sorted(map(re.escape, names), key=len, reverse=True)
    return re.sub("|".join(longest_first), lambda found: short[found[0]], sentence)


def detail_lines(state: State, name: str | None, width: int) -> list[Line]:
    """What is known of one scheme, of the run, and what stands in its way."""
    probed = state.probed
    if probed is None:
        return [*_blocked(state, width), *_about_to(state, width)]
    lines: list[Line] = []
    if probed.problem and probed.problem != STOPPED:
        lines += _problem(probed.problem, width)
    if probed.stale:
        lines += texts("~ files changed after these numbers were computed", width, "warning")
    report = probed.report
    if report is None:
        return lines or [[("a child process loads the reference …", "dim")]]
    result = next((r for r in report.results if r.scheme == name), None)
    if name is not None:
        lines += texts(name, width, "bold")
        lines += _result(report, result, name, width)
    if report.worst:
        lines += _worst(report, result, width)
    lines.append([("how it was computed", "title")])
    lines += fields(_how(report), width)
    for note in report.notes:
        lines += texts(f"note: {note}", width, "warning")
    return lines


def _blocked(state: State, width: int) -> list[Line]:
    """Why nothing can be started, if so."""
    reason = no_run(state)
    if reason is None:
        return []
    return [[("disabled", "warning")], *texts(reason, width, "bold", "  "), []]


def _about_to(state: State, width: int) -> list[Line]:
    lines = texts(
        "Compares the logits behind the last token of each prompt: every scheme against the "
        "reference, weights dequantised as their scales say, in a child process.",
        width,
    )
    command = words(asked(state))
    if command is not None:
        from ckptdiff.tui.actions import command_line

        lines += [[("enter", "key"), (" runs this:", "")]]
        lines += texts(command_line(command), width, "accent", "  ")
    return lines


def _problem(problem: str, width: int) -> list[Line]:
    """An error with its next step. What a child printed on its way down is in its log, which
    the last line names."""
    first, *rest = problem.split("\n")
    steps = [line for line in rest if line and not line.startswith((" ", "Traceback", "During"))]
    lines = texts(f"! {first}", width, "error")
    for step in steps[-2:]:
        lines += texts(f"next: {step}" if step is steps[-1] else step, width, "accent", "  ")
    return [*lines, []]


def _result(report: ProbeReport, result: ProbeResult | None, name: str, width: int) -> list[Line]:
    """The numbers of one scheme."""
    if result is None:
        reasons = [item.reason for item in report.unread if item.path == name]
        if reasons:
            return texts(f"? not computed: {reasons[0]}", width, "warning")
        return [[("not computed yet", "dim")]]
    lines: list[Line] = []
    if result.identical_to is not None:
        why = f" ({result.cause})" if result.cause else ""
        lines += texts(f"= the same model as {result.identical_to}{why}", width, "warning")
    elif result.indistinguishable:
        lines += texts(f"~ {_NOISE}", width, "warning")
    coverage = result.coverage
    declared = "" if coverage is None or coverage.declared is None else (
        f", {coverage.declared:g} % declared")  # fmt: skip
    pairs = [
        ("modules", "-" if coverage is None
         else f"{coverage.quantized} of {coverage.total} quantized{declared}"),
        ("KL", _spread(result.kl)),
        ("MSE", _spread(result.mse)),
        ("agreement", f"top-1 {result.top1:.1%}, top-5 {result.top5:.1%}"),
        ("reverse KL", _spread(result.reverse_kl)),
        ("JS", _spread(result.js)),
    ]  # fmt: skip
    if result.perplexity is not None:
        ratio = "" if result.perplexity_ratio is None else f", x {result.perplexity_ratio:.4f}"
        pairs.append(("perplexity", f"{result.perplexity:.6g}{ratio}"))
    return lines + fields(pairs, width)


def _worst(report: ProbeReport, result: ProbeResult | None, width: int) -> list[Line]:
    """The prompts that are hardest for the scheme that is furthest off, and the KL of the one
    under the cursor there, largest first."""
    hardest = report.worst[0].scheme
    lines: list[Line] = [[("worst prompts", "title")]]
    if result is None:
        lines += texts(f"those of {hardest}", width, "dim")
    elif result.scheme != hardest:
        lines += texts(f"the worst of {hardest}, with the KL of {result.scheme}", width, "dim")
    kls = [p.kl if result is None else result.per_prompt.kl[p.number - 1] for p in report.worst]
    for kl, prompt in sorted(zip(kls, report.worst, strict=True), key=lambda row: -row[0]):
        text = " ".join(prompt.text.split())[:200]
        first, *rest = texts(text, max(16, width - 16))
        lines.append([(f"  {prompt.number:>4}  {kl:.1e}  ", "dim"), *first])
        lines += [[(" " * 17, ""), *line] for line in rest[:1]]
    return lines


def _how(report: ProbeReport) -> Iterator[tuple[str, str]]:
    prompts, noise = report.prompts, report.noise
    if report.results:
        yield "verdict", report.verdict
    yield "reference", report.reference
    yield (
        "prompts",
        (
            f"{plural(prompts.count, 'prompt')} of {prompts.loaded:,} ({prompts.source}), "
            f"{prompts.tokens:,} tokens"
        ),
    )
    inputs = ", inputs rounded" if report.activations == "static" else ""
    yield "computed in", f"{report.dtype} on {report.device}{inputs}"
    yield "noise floor", "not measured" if noise.kl is None else f"KL {noise.kl:.1e}"
    if report.perplexity is not None:
        yield "its perplexity", f"{report.perplexity:.6g}"
    for item in report.unread:
        yield "not computed", f"{item.path}: {item.reason}"


def curve_lines(state: State, name: str | None, width: int, height: int) -> list[Line]:
    """KL over coverage, for the family of the scheme under the cursor."""
    report = state.probed.report if state.probed else None
    if report is None or not report.results:
        return [[("KL over coverage: nothing yet", "dim")]]
    found = {result.scheme: result for result in report.results}
    here = found.get(name or "")
    of_family = next((c for c in report.curves if here is not None and c.family == here.family),
                     report.curves[0] if report.curves else None)  # fmt: skip
    if of_family is None:
        return [[("no coverage to draw KL over", "dim")]]
    points = [
        (round(100 * share_of(found[scheme]), 1), found[scheme].kl.mean)
        for scheme in of_family.schemes
    ]
    rises = {True: "rises", False: "does not rise throughout", None: ""}[of_family.rises]
    if len(points) < 2:
        only = f"one point: {points[0][0]:g} % of modules, KL {points[0][1]:.1e}"
        return [[("KL over % of modules", "title")], *texts(only, width, "dim")]
    title: Line = [(fit(f"KL over % of modules  {rises}".rstrip(), width), "title")]
    return [title, *curve(points, width, height - 1)]


def _spread(value: Interval) -> str:
    return f"{value.mean:.2e} ({value.lo:.1e} to {value.hi:.1e})"


def _small(value: Value) -> str:
    return f"{value:.1e}" if isinstance(value, int | float) else "-"


def _figure(value: Value) -> str:
    return f"{value:.5g}" if isinstance(value, int | float) else "-"


def _fixed(value: Value, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, int | float) else "-"


def _share(value: Value) -> str:
    return f"{value:.0%}" if isinstance(value, int | float) else "-"
