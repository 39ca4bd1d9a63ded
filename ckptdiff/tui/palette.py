"""The command palette: every action of the table by its name, disabled ones with their reason."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import cast

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.types import IgnoreReturnCallbackType

from ckptdiff.tui.actions import ACTIONS, Action
from ckptdiff.tui.state import State


class ActionProvider(Provider):
    """Feeds the palette from the table."""

    async def discover(self) -> Hits:
        for action, help_ in self._actions():
            yield DiscoveryHit(title(action), self._run(action), help=help_)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for action, help_ in self._actions():
            if (score := matcher.match(f"{action.name} {action.help}")) > 0:
                yield Hit(score, title(action), self._run(action), help=help_)

    def _actions(self) -> Iterator[tuple[Action, str]]:
        state = cast(State, self.app.state)  # type: ignore[attr-defined]
        for action in ACTIONS:
            reason = action.why_not(state)
            yield action, action.help if reason is None else f"off: {reason}"

    def _run(self, action: Action) -> IgnoreReturnCallbackType:
        return partial(self.app.perform, action.id)  # type: ignore[attr-defined]


def title(action: Action) -> str:
    return f"{action.name} ({action.key})"
