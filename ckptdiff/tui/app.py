"""The app: modes, keys and messages. What they do lies in the files beside this one."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from textual.app import App
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Input

from ckptdiff import api
from ckptdiff.errors import CkptdiffError
from ckptdiff.tui.actions import ACTIONS, BY_ID, command_line, rule_words, stoppable
from ckptdiff.tui.bridge import Bridge, Done, Failed, Logged, Partly, Progressed
from ckptdiff.tui.palette import ActionProvider
from ckptdiff.tui.runner import LEAVE, Runner
from ckptdiff.tui.running import said
from ckptdiff.tui.screens.mode import Framed, Hears
from ckptdiff.tui.screens.sweep import SweepScreen
from ckptdiff.tui.state import MODES, Mode, Options, State
from ckptdiff.tui.store import Store
from ckptdiff.tui.text import shown
from ckptdiff.tui.themes import THEMES
from ckptdiff.tui.widgets.toned import TONE_CLASSES
from ckptdiff.tui.work import PAGES, Tabled, Work, compared, progressed, without_pages

WATCH_SECONDS = 2.0
_TURN_SECONDS = 0.0005


def _late(module: str, screen: str) -> Callable[[], Screen[Any]]:
    """A screen whose module is imported when it is first shown: the first frame is not."""
    return lambda: getattr(import_module(f"ckptdiff.tui.screens.{module}"), screen)()


class CkptdiffApp(App[None]):
    """Shows a sweep. `state` is all that it knows; messages of workers replace it."""

    TITLE = "ckptdiff"
    CSS_PATH = "app.tcss"
    COMPONENT_CLASSES: ClassVar[set[str]] = set(TONE_CLASSES)
    COMMANDS: ClassVar[set[Any]] = {ActionProvider}
    ENABLE_COMMAND_PALETTE = True
    COMMAND_PALETTE_BINDING = "f13"  # the table has the keys
    MODES: ClassVar[dict[str, str | Callable[[], Screen[Any]]]] = {
        "sweep": SweepScreen,
        "layers": _late("layers", "LayersScreen"),
        "identity": _late("identity", "IdentityScreen"),
        "diff": _late("diff", "DiffScreen"),
        "probe": _late("probe", "ProbeScreen"),
        "jobs": _late("jobs", "JobsScreen"),
    }
    DEFAULT_MODE = "sweep"
    # Textual declares these as variables of the instance.
    HORIZONTAL_BREAKPOINTS = [(0, "-slim"), (60, "-narrow"), (120, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-tiny"), (20, "-short"), (40, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+q,ctrl+c", "leave", "Quit", show=False, priority=True),
        Binding("ctrl+z", "suspend_process", "Suspend", show=False, priority=True),
        # With priority keys are taken one after the other, however fast they come.
        *(Binding(a.keys, f"do('{a.id}')", a.name, show=False, priority=True) for a in ACTIONS),
    ]

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.state = State(options)
        self.stores: dict[str, Store] = {}
        self.bridge = Bridge(self.post_message)
        self.work = Work(self.bridge, options)
        self._visited: list[Mode] = []
        self.runner = Runner(self)
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = options.theme
        self.stylesheet.set_variables(self.get_css_variables())

    def refresh_css(self, animate: bool = True) -> None:
        """Parse and apply the styles again: until the first screen is mounted only the app's own,
        which that screen draws with. Mounting parses and applies the others, as Textual would
        twice more here."""
        if not self.screen_stack:
            return
        if self.screen.is_mounted:
            super().refresh_css(animate)
        else:
            self.stylesheet.apply(self)

    def on_mount(self) -> None:
        # The first frame is on screen before anything is read.
        self.call_after_refresh(self.work.look)
        if self.state.options.watch:
            self.set_interval(WATCH_SECONDS, self.work.poll)

    # State

    def set_state(self, state: State) -> None:
        """Show another state, and start what its mode needs."""
        self.state = state
        self.work.ensure(state.mode, state)
        for screen in reversed(self.screen_stack):
            if isinstance(screen, Framed):
                screen.update(state)
                break

    def forgive(self, job: str) -> None:
        """A job is tried again: that it failed before is not shown any more."""
        kept = {name: why for name, why in self.state.failures.items() if name != job}
        self.state = replace(self.state, failures=kept)

    def point_at(self, scheme: str | None) -> None:
        """The cursor of Sweep is on another scheme."""
        self.state = replace(self.state, scheme=scheme)

    async def compare(self, one: str, other: str) -> None:
        """Diff these two."""
        await self._switch("diff", pair=(one, other))

    def on_progressed(self, message: Progressed) -> None:
        self.set_state(progressed(self.state, message.job, message.progress))

    def on_done(self, message: Done) -> None:
        job, result = message.job, message.result
        if job == "write":
            self.say(str(result))
            return
        if isinstance(result, Tabled):
            self.stores[job] = result.store
        self.set_state(self.work.done(self.state, job, result))
        for screen in reversed(self.screen_stack):
            if isinstance(screen, Hears):
                screen.on_result(job, result)
        self.runner.leave_when_over()

    def on_partly(self, message: Partly) -> None:
        self.set_state(self.work.partly(self.state, message.job, message.result))

    def on_failed(self, message: Failed) -> None:
        if message.job == "write":
            self.say(message.reason, problem=True)
            return
        self.set_state(self.work.failed(self.state, message.job, message.reason))
        for screen in reversed(self.screen_stack):
            if isinstance(screen, Hears):
                screen.on_failure(message.job, message.reason)
        self.runner.leave_when_over()

    def on_logged(self, message: Logged) -> None:
        self.set_state(said(self.state, message.job, message.lines))

    def say(self, text: str, *, problem: bool = False) -> None:
        """A few words that go away again. Never markup: it may name what strangers named."""
        self.notify(
            "\n".join(map(shown, text.split("\n"))),
            severity="warning" if problem else "information",
            markup=False,
        )

    # Actions: one method each, named after the row of the table

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Whether a key is ours: not while a dialog is open, and esc alone while somebody
        types into the filter."""
        if action != "do":
            return True
        typing = isinstance(self.focused, Input) and parameters != ("back",)
        framed = self.framed
        only = BY_ID[str(parameters[0])].only
        elsewhere = bool(only) and self.state.mode not in only
        return framed is not None and not (typing or elsewhere or parameters[0] in framed.OWN)

    async def action_do(self, name: str) -> None:
        await self.perform(name)

    async def action_leave(self) -> None:
        if self.screen.id == LEAVE:  # asked twice: that is an answer
            self.screen.dismiss(True)
        elif (opening := self.do_quit()) is not None:
            await opening

    async def perform(self, name: str) -> None:
        """What a key or the palette asks for."""
        if name in MODES:
            await self._switch(name)
            return
        if (reason := BY_ID[name].why_not(self.state)) is not None:
            self.say(f"{BY_ID[name].name}: {reason}", problem=True)
            return
        act: Callable[[], Awaitable[Any] | None] = getattr(self, f"do_{name}")
        if (opening := act()) is not None:
            await opening

    async def _switch(self, mode: Mode, pair: tuple[str, str] | None = None) -> None:
        if mode != self.state.mode:
            self._visited.append(self.state.mode)
        state = without_pages(replace(self.state, mode=mode))
        if mode == "diff" and mode != self.state.mode:
            state = compared(state, pair)
        self.state = state
        self.work.ensure(mode, state)
        await self.switch_mode(mode)

    @property
    def framed(self) -> Framed | None:
        """The screen that keys are meant for, if nothing lies over it."""
        return self.screen if isinstance(self.screen, Framed) else None

    def do_run(self) -> None:
        self.set_state(self.work.probe(self.state))

    def do_cancel(self) -> Awaitable[Any] | None:
        job = stoppable(self.state)
        return None if job is None else self.runner.cancel(job)

    def do_reexport(self) -> Awaitable[Any] | None:
        return self.runner.reexport()

    def do_filter(self) -> None:
        if self.framed is not None:
            self.framed.open_filter()

    def do_next(self) -> None:
        self._seek(1)

    def do_previous(self) -> None:
        self._seek(-1)

    def _seek(self, step: int) -> None:
        grid = self.framed.grid if self.framed is not None else None
        if grid is None or not grid.next_fault(step):
            self.say("no fault in what is shown")

    def do_mark(self) -> None:
        scheme, marked = self.state.scheme, self.state.marked
        if scheme is not None:
            others = tuple(id for id in marked if id != scheme)
            self.set_state(
                replace(self.state, marked=others if scheme in marked else (*marked, scheme))
            )
            if self.framed is not None and self.framed.grid is not None:
                self.framed.grid.action_move(1)

    def do_rule(self) -> Awaitable[Any] | None:
        from ckptdiff.tui.screens.pages import RulePage

        words = rule_words(self.state)
        return self.push_screen(RulePage(api.rule_table(words[1])[0])) if words else None

    def do_copy(self) -> None:
        grid = self.framed.grid if self.framed is not None else None
        from ckptdiff.tui.views import view_words

        words, apart = view_words(self.state, grid.store if grid is not None else None)
        if words is not None:
            line = command_line(words)
            self.copy_to_clipboard(line)
            self.say(f"copied: {line}" + (f"\nThat prints {apart}." if apart else ""))

    def do_export(self) -> Awaitable[Any]:
        from ckptdiff.tui import export
        from ckptdiff.tui.screens.dialogs import Ask

        report = export.shown_report(self.state)
        suffixes = ", ".join(export.formats(report))
        note = f"The suffix picks the format: {suffixes}."
        return self.push_screen(
            Ask("Write the report to", note, f"ckptdiff-{self.state.mode}.json"), self._export
        )

    def _export(self, answer: str | None) -> None:
        from ckptdiff.tui import export

        if answer is not None:
            report = export.shown_report(self.state)
            self.bridge.start("write", lambda sink, cancel: export.write(report, Path(answer)))

    def do_svg(self) -> Awaitable[Any]:
        from ckptdiff.tui.screens.dialogs import Ask

        # Taken now: what is asked for is the view, not the question over it.
        picture = self.export_screenshot(title="ckptdiff")
        question = Ask("Write this view to", "An SVG picture.", f"ckptdiff-{self.state.mode}.svg")
        opening: Awaitable[Any] = self.push_screen(
            question, lambda answer: self._picture(answer, picture)
        )
        return opening

    def _picture(self, answer: str | None, picture: str) -> None:
        from ckptdiff.tui import export

        if answer is not None:
            self.bridge.start(
                "write", lambda sink, cancel: export.write_bytes(picture.encode(), Path(answer))
            )

    def do_raw(self) -> None:
        self.set_state(replace(self.state, raw=not self.state.raw, diff=None))

    def do_deep(self) -> None:
        self.work.deepen()
        often = "on every look" if self.work.deep else "no more"
        self.say(f"quantized weights are recomputed from base {often}")

    def do_rehash(self) -> None:
        self.work.rehash = True
        self.work.look()

    def do_sort(self) -> None:
        if self.framed is not None and self.framed.grid is not None:
            self.framed.grid.sort_next()

    def do_reverse(self) -> None:
        if self.framed is not None and self.framed.grid is not None:
            self.framed.grid.sort_reversed()

    def do_theme(self) -> None:
        self.theme = "light" if self.theme == "dark" else "dark"

    def do_palette(self) -> None:
        self.action_command_palette()

    def do_help(self) -> Awaitable[Any]:
        from ckptdiff.tui.screens.dialogs import HelpPage

        about = getattr(self.focused, "HELP", None) or "Type to filter; enter keeps it, esc clears."
        return self.push_screen(HelpPage(self.state, about))

    def do_back(self) -> Awaitable[Any] | None:
        """Filter, page, mode: whatever was opened last goes first."""
        if self.framed is None or self.framed.clear_filter():
            return None
        if len(self.screen_stack) > 1:
            self.bridge.cancel(*PAGES)
            self.state = without_pages(self.state)
            return self.pop_screen()
        if self._visited:
            mode = self._visited.pop()
            self.state = replace(self.state, mode=mode)
            return self.switch_mode(mode)
        if self.state.changed or self.state.gone:
            self.set_state(replace(self.state, changed=frozenset(), gone=()))
        else:
            self.say("this is the first screen; q quits")
        return None

    def do_quit(self) -> Awaitable[Any] | None:
        return self.runner.quit()

    def on_unmount(self) -> None:
        self.bridge.close()


def run(options: Options) -> None:
    """Run the app until somebody quits it. Raises `CkptdiffError` for a root that is none."""
    # Threads that work take turns with the one that answers keys, a few times a millisecond.
    sys.setswitchinterval(_TURN_SECONDS)
    app = CkptdiffApp(options)
    app.run()
    if app.return_code:
        raise CkptdiffError("the app ended early", "Run it again; nothing was changed.")
