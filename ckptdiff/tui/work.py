"""The jobs of the app: which verb answers which question, and what follows from an answer.

`Work` starts jobs and turns their results into the next state; it draws nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from ckptdiff import api
from ckptdiff.events import CancelToken, Sink
from ckptdiff.tui import running
from ckptdiff.tui.bridge import Bridge, Paced
from ckptdiff.tui.reexports import next_broken, repairable
from ckptdiff.tui.state import Mode, Options, Progress, State, next_pair
from ckptdiff.tui.store import Store

if TYPE_CHECKING:
    from ckptdiff.records.delta import DiffReport
    from ckptdiff.records.detail import Overlap
    from ckptdiff.records.layers import LayersReport
    from ckptdiff.records.report import CheckReport, IdentityRow

Snapshot = Mapping[str, object]
# Jobs of pages, which open on top of a mode.
PAGES = ("details", "module", "values")


class Looked(NamedTuple):
    """What headers show, and what the files were when that began."""

    snapshot: Snapshot
    report: CheckReport


class Tabled(NamedTuple):
    """A large report with its store, which is built where nobody waits for it."""

    report: LayersReport | DiffReport
    store: Store


class Judged(NamedTuple):
    """A report from hashes; `deep`: quantized weights were recomputed from base."""

    report: CheckReport
    deep: bool


class Hashed(NamedTuple):
    """Which of the schemes that are hashed by now are the same."""

    identity: tuple[IdentityRow, ...]


class Work:
    """Starts jobs. `known` is what the files were when they were last read; `rehash` is asked
    for once, `deep` until it is not asked for any more. `restless` are the schemes whose files
    had changed when they were looked at last."""

    def __init__(self, bridge: Bridge, options: Options) -> None:
        self.bridge = bridge
        self.options = options
        self.known: Snapshot | None = None
        self.rehash = False
        self.deep = False
        self.restless: frozenset[str] = frozenset()

    def look(self) -> None:
        """Judge from headers; hashing follows when that is done."""
        options = self.options

        def task(sink: Sink, cancel: CancelToken) -> Looked:
            # First, so that what changes while we read is seen as a change afterwards.
            snapshot = api.snapshot(options.root)
            return Looked(snapshot, _check(options, sink, cancel, hashes=False))

        self.bridge.cancel("hash", "layers", "overlap", "diff")
        self.bridge.start("check", task)

    def hash(self) -> None:
        """Judge with hashes, those remembered not read again."""
        options, rehash, deep = self.options, self.rehash, self.deep
        self.rehash = False

        def task(sink: Sink, cancel: CancelToken) -> Judged:
            paced = Paced(lambda part: self.bridge.tell("hash", cancel, part), sink)
            report = _check(
                options,
                paced.sink,
                cancel,
                rehash=rehash,
                deep=deep,
                on_identity=lambda rows: paced(Hashed(rows)),
            )
            return Judged(report, deep)

        self.bridge.start("hash", task)

    def deepen(self) -> None:
        """Recompute weights from base with every look, or stop doing so."""
        self.deep = not self.deep
        if not self.bridge.runs("check"):  # which is followed by hashing in any case
            self.hash()

    def poll(self) -> None:
        """Look whether files changed, unless a look is under way."""
        if not self.bridge.runs("check") and not self.bridge.runs("watch"):
            root = self.options.root
            self.bridge.start("watch", lambda sink, cancel: dict(api.snapshot(root)))

    def ensure(self, mode: Mode, state: State) -> None:
        """Start what a mode shows and nobody has asked for yet."""
        if state.report is None or mode in state.failures:
            return
        if mode == "layers" and state.layers is None:
            self._once("layers", self._layers())
        elif mode == "identity" and state.overlap is None and state.hashed:
            self._once("overlap", self._overlap(state))
        elif mode == "diff" and state.diff is None and state.pair:
            self._once("diff", self._diff(state))

    def _once(self, job: str, task: Callable[[Sink, CancelToken], object]) -> None:
        if not self.bridge.runs(job):
            self.bridge.start(job, task)

    def _layers(self) -> Callable[[Sink, CancelToken], Tabled]:
        options = self.options

        def task(sink: Sink, cancel: CancelToken) -> Tabled:
            report = api.layers(options.root, base=options.base, sink=sink, cancel=cancel)
            from ckptdiff.tui.tables import layers_store

            return Tabled(report, layers_store(report))

        return task

    def _overlap(self, state: State) -> Callable[[Sink, CancelToken], Overlap]:
        root, base = self.options.root, state.base_id
        # The one that the report has, also when the settings named it.
        path = None if base is None else state.path_of(base)
        return lambda sink, cancel: api.overlap(root, base=path, sink=sink, cancel=cancel)

    def _diff(self, state: State) -> Callable[[Sink, CancelToken], Tabled]:
        assert state.pair is not None
        one, other = (state.path_of(id) for id in state.pair)
        raw = state.raw

        def task(sink: Sink, cancel: CancelToken) -> Tabled:
            report = api.diff(one, other, raw=raw, sink=sink, cancel=cancel)
            from ckptdiff.tui.tables import diff_store

            return Tabled(report, diff_store(report))

        return task

    def probe(self, state: State) -> State:
        """Run what the form of Probe says; the state with that."""
        from ckptdiff.tui import probe_work

        return probe_work.start(self.bridge, state)

    # What follows

    def partly(self, state: State, job: str, result: object) -> State:
        """The state with what a job that goes on has by now."""
        from ckptdiff.records.probe import ProbeReport
        from ckptdiff.tui import probe_work

        if isinstance(result, ProbeReport):
            return probe_work.partly(state, job, result)
        if isinstance(result, Hashed):
            return replace(state, letters=result.identity)
        return state

    def done(self, state: State, job: str, result: object) -> State:
        """The state after a job, with the jobs started that follow from it."""
        from ckptdiff.records.delta import DiffReport
        from ckptdiff.records.detail import Overlap
        from ckptdiff.records.layers import LayersReport
        from ckptdiff.records.probe import ProbeReport

        failures = {name: why for name, why in state.failures.items() if name != job}
        state = replace(state, failures=failures, work=_without(state.work, job))
        if state.record(job) is not None:
            state = self._ended(running.ended(state, job, result, running.clock()), job)
        match result:
            case Looked(snapshot, report):
                self.known = snapshot
                ids = [row.id for row in report.schemes]
                state = replace(
                    state,
                    report=report,
                    hashed=False,
                    letters=(),
                    deep=False,
                    problem="",
                    failures={},
                    layers=None,
                    overlap=None,
                    diff=None,
                    scheme=state.scheme if state.scheme in ids else next(iter(ids), None),
                    marked=tuple(id for id in state.marked if id in ids),
                )
                self.hash()
            case Judged(report, deep):
                state = replace(state, report=report, hashed=True, deep=deep)
                # A remembered report comes without its rules, and the key that repairs needs them.
                self._once("rules", lambda sink, cancel: repairable())
                if state.repaired:
                    seek = next_broken(state, state.repaired)
                    state = replace(state, seek=seek, repaired=())
            case Tabled(LayersReport() as report):
                state = replace(state, layers=report)
            case Tabled(DiffReport() as report):
                state = replace(state, diff=report)
            case Overlap():
                state = replace(state, overlap=result)
            case ProbeReport():
                from ckptdiff.tui import probe_work

                state = probe_work.done(state, job, result)
            case dict() if job == "watch":
                return self._watched(state, result)
        return state

    def failed(self, state: State, job: str, reason: str) -> State:
        """The state after a job that came to nothing."""
        state = replace(state, work=_without(state.work, job))
        if state.record(job) is not None:
            state = self._ended(running.failed(state, job, reason, running.clock()), job)
        if state.probed is not None and job == state.probed.job:
            from ckptdiff.tui import probe_work

            return probe_work.failed(state, job, reason)
        if not reason or job == "plan" or state.record(job):  # told where they are shown
            return state
        if job == "watch" and state.report is None:
            return state
        if job in ("check", "watch"):
            return replace(state, problem=reason.partition("\n")[0])
        name = "identity" if job == "overlap" else job
        return replace(state, failures={**state.failures, name: reason})

    def _ended(self, state: State, job: str) -> State:
        """What was written, by a job that is over, is looked at again."""
        record = state.record(job)
        assert record is not None
        if record.words[0] != "reexport":
            return state
        # Outcomes are in the order in which the command names its schemes.
        outcomes = getattr(record.result, "outcomes", ())
        named = zip(record.words[1:], outcomes, strict=False)
        written = {path for path, outcome in named if outcome.status == "written"}
        done = tuple(row.id for row in state.schemes if state.path_of(row.id) in written)
        marked = tuple(id for id in state.marked if id not in done)
        self.look()
        return replace(state, repaired=done, marked=marked)

    def _watched(self, state: State, now: Snapshot) -> State:
        """What changed since we looked is looked at again, and marked."""
        if self.known is not None and now == self.known and not state.problem:
            return state
        before = self.known or {}
        changed = frozenset(id for id in now if id in before and now[id] != before[id])
        new = frozenset(id for id in now if id not in before) if self.known else frozenset[str]()
        gone = tuple(sorted(set(before) - set(now)))
        # What is written to all the time would keep everything from ever being hashed: that
        # it changed again is looked at when hashing is over.
        again = bool(changed) and not new and not gone and changed <= self.restless
        if again and self.bridge.runs("hash"):
            return state
        self.restless = changed
        self.look()
        probed = state.probed and state.probed._replace(stale=True)
        return replace(state, changed=changed | new, gone=gone, failures={}, probed=probed)


def progressed(state: State, job: str, work: Progress) -> State:
    """The state with a job that got on."""
    if job == "watch":
        return state
    state = running.advanced(state, job, work)
    return replace(state, work=(*_without(state.work, job), work))


def dropped(state: State, job: str) -> State:
    """The state without a job that nobody waits for any more."""
    return replace(state, work=_without(state.work, job))


def without_pages(state: State) -> State:
    """The state without what kept a page, which is closed now, from being filled."""
    kept = {job: why for job, why in state.failures.items() if job not in PAGES}
    return replace(state, failures=kept)


def compared(state: State, pair: tuple[str, str] | None = None) -> State:
    """The state with another pair to compare: `pair`, or what marks and cursor say."""
    wanted = pair or next_pair(state)
    if wanted == state.pair and state.diff is not None:
        return state
    failures = {job: reason for job, reason in state.failures.items() if job != "diff"}
    return replace(state, pair=wanted, diff=None, failures=failures)


def _without(work: tuple[Progress, ...], job: str) -> tuple[Progress, ...]:
    return tuple(item for item in work if item.job != job)


def _check(options: Options, sink: Sink, cancel: CancelToken, **how: Any) -> CheckReport:
    return api.check(
        options.root,
        base=options.base,
        settings=api.load_settings(options.root, options.config),
        sink=sink,
        cancel=cancel,
        **how,
    )
