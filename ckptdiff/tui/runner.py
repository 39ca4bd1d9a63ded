"""Jobs that are asked about before they start or stop: re-exports, cancelling, leaving.

Questions go over the screen, their answers come back here. What a job does is not known here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ckptdiff.tui.reexports import Answer, carried_out, record_of, request_of
from ckptdiff.tui.running import clock, loses, stopping
from ckptdiff.tui.state import JobRecord

if TYPE_CHECKING:
    from ckptdiff.tui.app import CkptdiffApp
    from ckptdiff.tui.bridge import Task
    from ckptdiff.tui.screens.dialogs import Confirm

LEAVE = "leave"  # the id of the question


class Runner:
    """Starts and stops what Jobs shows. `leaving`: the app ends once nothing runs any more."""

    def __init__(self, app: CkptdiffApp) -> None:
        self.app = app
        self.leaving = False

    def launch(self, record: JobRecord, task: Task, *, writes: bool = False) -> None:
        """Run a job that Jobs shows."""
        self.app.set_state(self.app.state.with_record(record))
        self.app.bridge.start(record.name, task, writes=writes)

    def reexport(self) -> Awaitable[Any] | None:
        """Show the plan; what is agreed to is carried out in Jobs."""
        from ckptdiff.tui.screens.replan import PlanDialog

        if (request := request_of(self.app.state)) is None:
            return None
        opening: Awaitable[Any] = self.app.push_screen(PlanDialog(request), self._agreed)
        return opening

    async def _agreed(self, answer: Answer | None) -> None:
        if answer is not None:
            record = record_of(self.app.state, answer, clock())
            say = partial(self.app.bridge.log, record.name)
            self.launch(record, partial(carried_out, answer, say), writes=True)
            await self.app.perform("jobs")

    def cancel(self, job: str) -> Awaitable[Any] | None:
        """Stop a job, and ask first when that throws something away."""
        record = self.app.state.record(job)
        if record is None or not loses(record):
            self._stop(job)
            return None
        from ckptdiff.tui.screens.dialogs import Confirm

        note = "What it has done so far is thrown away. What was there before stays as it was."
        return self._ask(Confirm(f"Cancel the {record.title}?", note), lambda: self._stop(job))

    def _stop(self, job: str) -> None:
        self.app.set_state(stopping(self.app.state, job))
        self.app.bridge.stop(job)

    def quit(self) -> Awaitable[Any] | None:
        """Leave at once, or ask first when something runs."""
        running = self.app.state.running
        if not running or self.leaving:
            self._leave()
            return None
        from ckptdiff.tui.screens.dialogs import Confirm

        titles = " and ".join(record.title for record in running)
        note = f"What runs: {titles}. It is stopped, and nothing half-made stays."
        return self._ask(Confirm("Leave, and cancel what runs?", note, id=LEAVE), self._stop_all)

    def _ask(self, question: Confirm, agreed: Callable[[], None]) -> Awaitable[Any]:
        opening: Awaitable[Any] = self.app.push_screen(
            question, lambda answer: agreed() if answer else None
        )
        return opening

    def _stop_all(self) -> None:
        self.leaving = True
        for record in self.app.state.running:
            self._stop(record.name)
        self.leave_when_over()

    def leave_when_over(self) -> None:
        """Leave, if that is wanted, once what was stopped has cleaned up behind itself."""
        if self.leaving and not self.app.state.running:
            self._leave()

    def _leave(self) -> None:
        self.app.bridge.close()
        self.app.exit()
