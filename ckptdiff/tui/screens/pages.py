"""Pages that open on top of a mode: one scheme, one module, one tensor, one rule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.widget import Widget

from ckptdiff import api
from ckptdiff.records.delta import TensorDelta
from ckptdiff.records.detail import DifferenceDetail, ModuleDetail, SchemeDetail, ValueDetail
from ckptdiff.records.finding import RuleInfo
from ckptdiff.tui.actions import findings_of
from ckptdiff.tui.describe import (
    delta_lines,
    difference_lines,
    module_lines,
    rule_lines,
    scheme_lines,
    values_lines,
)
from ckptdiff.tui.screens.mode import Framed
from ckptdiff.tui.state import State
from ckptdiff.tui.tables import tensors_store
from ckptdiff.tui.text import Line
from ckptdiff.tui.widgets.grid import Grid
from ckptdiff.tui.widgets.panel import ScrollPanel


class _Page(Framed):
    """A page of lines, filled by a job."""

    JOB: ClassVar[str] = ""

    def __init__(self, *crumbs: str) -> None:
        super().__init__()
        self._crumbs = crumbs

    @property
    def crumbs(self) -> Sequence[str]:
        return (*super().crumbs, *self._crumbs)

    def body(self) -> Iterable[Widget]:
        yield ScrollPanel(self.lines, id="page")

    def lines(self, width: int, rows: int) -> Sequence[Line]:
        return ()

    def waiting(self) -> Sequence[Line]:
        """What there is to say while there is nothing to show."""
        if (reason := self.state.failures.get(self.JOB)) is not None:
            return [[(f"! {line}", "warning")] for line in reason.split("\n")]
        return [[("reading …", "dim")]]

    def draw(self, state: State) -> None:
        if self.JOB in state.failures:
            self.redraw()

    def redraw(self) -> None:
        """Something of what is shown has come in."""
        self.query_one("#page", ScrollPanel).redraw()


class SchemePage(_Page):
    """All that is known of one scheme."""

    JOB = "details"

    def __init__(self, scheme: str) -> None:
        super().__init__(scheme)
        self._scheme = scheme
        self._detail: SchemeDetail | None = None

    def on_mount(self) -> None:
        path = self.state.path_of(self._scheme)
        self.owner.bridge.start("details", lambda sink, cancel: (self._scheme, api.details(path)))

    def on_result(self, job: str, result: object) -> None:
        match job, result:
            case "details", (str(scheme), SchemeDetail() as detail) if scheme == self._scheme:
                self._detail = detail
                self.redraw()

    def lines(self, width: int, rows: int) -> Sequence[Line]:
        row = next((row for row in self.state.schemes if row.id == self._scheme), None)
        if row is None:
            return [[("! this scheme is not there any more", "warning")]]
        lines = scheme_lines(row, findings_of(self.state, row.id), self._detail, width)
        return lines if self._detail else [*lines, *self.waiting()]


class ModulePage(_Page):
    """One module of one scheme: its tensors, and what is claimed of it."""

    JOB = "module"
    FIELDS = ("dtype",)

    def __init__(self, scheme: str, module: str) -> None:
        super().__init__(module)
        self._scheme, self._module = scheme, module
        self._detail: ModuleDetail | None = None

    def body(self) -> Iterable[Widget]:
        yield Grid(opened=self._opened, placeholder="reading …")
        yield from super().body()

    def on_mount(self) -> None:
        path = self.state.path_of(self._scheme)
        self.owner.bridge.start("module", lambda sink, cancel: api.module(path, self._module))

    def on_result(self, job: str, result: object) -> None:
        if isinstance(result, ModuleDetail) and result.path == self.state.path_of(self._scheme):
            self._detail = result
            self.query_one(Grid).show(tensors_store(result))
            self.query_one(Grid).refresh(layout=True)
            self.refresh_frame()
            self.redraw()

    async def _opened(self) -> None:
        if (tensor := self.query_one(Grid).key) is not None:
            await self.app.push_screen(TensorPage(self._scheme, tensor))

    def lines(self, width: int, rows: int) -> Sequence[Line]:
        if self._detail is None:
            return self.waiting()
        hint: Line = [("enter", "key"), (" on a tensor: its values and their histogram", "dim")]
        return [*module_lines(self._detail, width), hint]


class _ValuesPage(_Page):
    """Values that are computed when the page is opened, as they are meant or as stored."""

    JOB = "values"
    OWN = ("raw",)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "toggle_raw", "Raw", show=False, priority=True)
    ]

    def __init__(self, tensor: str, raw: bool = False) -> None:
        super().__init__(tensor)
        self._tensor, self._raw = tensor, raw

    def on_mount(self) -> None:
        self.read()

    def read(self) -> None:
        """Start the job that reads the values; what is shown of others goes."""
        raise NotImplementedError

    def action_toggle_raw(self) -> None:
        """Codes instead of what they stand for, or back."""
        self._raw = not self._raw
        self.owner.forgive(self.JOB)
        self.read()
        self.redraw()


class TensorPage(_ValuesPage):
    """The values of one tensor."""

    def __init__(self, scheme: str, tensor: str) -> None:
        super().__init__(tensor)
        self._scheme = scheme
        self._detail: ValueDetail | None = None

    def read(self) -> None:
        self._detail = None
        path, tensor, raw = self.state.path_of(self._scheme), self._tensor, self._raw
        self.owner.bridge.start(
            "values", lambda sink, cancel: api.values(path, tensor, raw=raw, cancel=cancel)
        )

    def on_result(self, job: str, result: object) -> None:
        if isinstance(result, ValueDetail) and result.name == self._tensor:
            self._detail = result
            self.redraw()

    def lines(self, width: int, rows: int) -> Sequence[Line]:
        if self._detail is None:
            return self.waiting()
        hint: Line = [("r", "key"), (" shows raw codes, or what they stand for", "dim")]
        return [*values_lines(self._detail, width, rows), hint]


class DeltaPage(_ValuesPage):
    """One row of a diff: its statistics, and histograms of both sides and their difference."""

    def __init__(self, pair: tuple[str, str], delta: TensorDelta, raw: bool) -> None:
        super().__init__(delta.name, raw)
        self._pair, self._delta = pair, delta
        self._detail: DifferenceDetail | None = None

    def read(self) -> None:
        self._detail = None
        one, other = map(self.state.path_of, self._pair)
        tensor, raw = self._tensor, self._raw
        self.owner.bridge.start(
            "values",
            lambda sink, cancel: api.differences(one, other, tensor, raw=raw, cancel=cancel),
        )

    def on_result(self, job: str, result: object) -> None:
        if isinstance(result, DifferenceDetail) and result.name == self._tensor:
            self._detail = result
            self.redraw()

    def lines(self, width: int, rows: int) -> Sequence[Line]:
        lines = delta_lines(self._delta, width)
        if self._detail is None:
            return [*lines, *self.waiting()]
        hint: Line = [("r", "key"), (" shows stored numbers, or what they stand for", "dim")]
        return [*lines, *difference_lines(self._detail, width, rows - len(lines)), hint]


class RulePage(_Page):
    """The manual of one rule."""

    def __init__(self, rule: RuleInfo) -> None:
        super().__init__(rule.code)
        self._rule = rule

    def lines(self, width: int, rows: int) -> Sequence[Line]:
        return rule_lines(self._rule, width)
