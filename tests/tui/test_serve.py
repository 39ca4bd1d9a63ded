"""The app in a browser: who may open it, and that it is the app and read-only."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest
from command import environment, run
from driving import SAMPLES

SECONDS = 60


@contextmanager
def served(*arguments: str | Path) -> Iterator[str]:
    """The address that a running `ckptdiff tui --serve` prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ckptdiff", "tui", "samples/copied", "--serve", *arguments],
        cwd=SAMPLES.parent,
        env={**environment(), "XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"]},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        yield process.stderr.readline().strip()
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, rest
        assert "Traceback" not in rest
    finally:
        process.kill()
        process.wait()


Visit = Callable[[aiohttp.ClientSession, str], Awaitable[None]]


def visit(url: str, act: Visit) -> None:
    async def go() -> None:
        # Cookies of an address, not of a name, which a browser keeps as well.
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(cookie_jar=jar) as session:
            await act(session, url)

    asyncio.run(asyncio.wait_for(go(), SECONDS))


def origin_of(url: str) -> str:
    return re.sub(r"/\?.*", "", url)


async def opened(session: aiohttp.ClientSession, url: str) -> aiohttp.ClientWebSocketResponse:
    """The socket, opened as the page opens it."""
    async with session.get(url) as page:
        assert page.status == 200
        assert str(page.url) == f"{origin_of(url)}/"  # the token has left the address
        assert "default-src 'self'" in page.headers["Content-Security-Policy"]
        assert page.headers["Referrer-Policy"] == "no-referrer"
        found = re.search(r'data-session-websocket-url="([^"]+)"', await page.text())
    assert found is not None
    return await session.ws_connect(
        f"{found[1]}?width=100&height=30", headers={"Origin": origin_of(url)}
    )


async def see(socket: aiohttp.ClientWebSocketResponse, *words: str) -> str:
    """What the app has drawn once it says all of `words`. Its letters, without the codes."""
    text = ""
    deadline = time.monotonic() + SECONDS
    while not all(word in text for word in words):
        assert time.monotonic() < deadline, text
        message = await socket.receive(timeout=SECONDS)
        if message.type == aiohttp.WSMsgType.BINARY:
            drawn = message.data.decode("utf-8", "replace")
            text += re.sub(r"\x1b\[[0-9;?<>=]*[A-Za-z]", " ", drawn)
        else:
            assert message.type == aiohttp.WSMsgType.TEXT, message
    return text


def test_the_app_is_served_and_read_only() -> None:
    async def act(session: aiohttp.ClientSession, url: str) -> None:
        async with await opened(session, url) as socket:
            await see(socket, "FAIL", "A ×4")
            await socket.send_str(json.dumps(["stdin", "o"]))
            await see(socket, "nothing is written")
            await socket.send_str(json.dumps(["stdin", "2"]))
            await see(socket, "104 mismatches")

    with served() as url:
        assert url.startswith("http://127.0.0.1:")
        visit(url, act)


def test_two_at_once_are_two_apps() -> None:
    """What one of them presses the other does not see, and one that leaves ends itself alone."""

    async def act(session: aiohttp.ClientSession, url: str) -> None:
        async with await opened(session, url) as one, await opened(session, url) as other:
            await asyncio.gather(see(one, "FAIL", "A ×4"), see(other, "FAIL", "A ×4"))
            await one.send_str(json.dumps(["stdin", "2"]))
            await other.send_str(json.dumps(["stdin", "3"]))
            first, second = await asyncio.gather(see(one, "104 mismatches"), see(other, "=100"))
            assert "=100" not in first
            assert "104 mismatches" not in second
            await one.close()
            await other.send_str(json.dumps(["stdin", "4"]))
            await see(other, "the same, byte for byte")

    with served() as url:
        visit(url, act)


def test_writing_is_allowed_when_it_is_asked_for() -> None:
    async def act(session: aiohttp.ClientSession, url: str) -> None:
        async with await opened(session, url) as socket:
            await see(socket, "FAIL", "A ×4")
            await socket.send_str(json.dumps(["stdin", "o"]))
            await see(socket, "Write the report to")

    with served("--allow-write") as url:
        visit(url, act)


def test_nobody_else_gets_in() -> None:
    async def act(session: aiohttp.ClientSession, url: str) -> None:
        here = origin_of(url)

        async def status(
            path: str, origin: str | None = None, cookies: bool = False, host: str | None = None
        ) -> int:
            headers = {k: v for k, v in (("Origin", origin), ("Host", host)) if v is not None}
            jar = session.cookie_jar if cookies else aiohttp.DummyCookieJar()
            connector = session.connector
            async with (
                aiohttp.ClientSession(
                    connector=connector, connector_owner=False, cookie_jar=jar
                ) as one,
                one.get(f"{here}{path}", headers=headers, allow_redirects=False) as answer,
            ):
                assert "Set-Cookie" not in answer.headers or answer.status == 303
                return answer.status

        token = url.partition("?")[2]
        assert await status("/") == 403
        assert await status("/?token=wrong") == 403
        assert await status("/?token=") == 403
        assert await status("/static/js/textual.js") == 403
        assert await status("/ws", origin=here) == 403
        assert await status(f"/?{token}", origin="http://evil.example") == 403
        assert await status(f"/?{token}", origin="null") == 403
        assert await status(f"/?{token}", host="evil.example") == 403  # a name that leads here
        assert await status(f"/ws?{token}", origin="http://evil.example") == 403
        assert await status(f"/ws?{token}") == 403  # no browser opens it without an origin
        assert await status(f"/?{token}") == 303
        async with session.get(url) as page:  # now with the cookie
            assert page.status == 200
        assert await status("/", cookies=True) == 200
        assert await status("/static/js/textual.js", cookies=True) == 200
        assert await status("/ws", origin="http://localhost:1", cookies=True) == 403
        for origin in ("http://evil.example", None):
            with pytest.raises(aiohttp.WSServerHandshakeError):
                headers = {} if origin is None else {"Origin": origin}
                await session.ws_connect(f"{here}/ws", headers=headers)

    with served() as url:
        visit(url, act)


def test_only_this_machine_is_listened_to() -> None:
    with served() as url:
        port = int(origin_of(url).rpartition(":")[2])
        listening = [
            line.split()[1]
            for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
            if line.split()[3] == "0A"
        ]
        mine = [address for address in listening if address.endswith(f":{port:04X}")]
        assert mine == [f"0100007F:{port:04X}"]
        tcp6 = Path("/proc/net/tcp6")
        six = tcp6.read_text() if tcp6.exists() else ""
        assert f":{port:04X} " not in six or " 0A " not in six.partition(f":{port:04X} ")[2][:60]


def test_every_server_has_its_own_token() -> None:
    with served() as one, served() as other:
        assert one.partition("token=")[2] != other.partition("token=")[2]
        assert len(one.partition("token=")[2]) >= 32


def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("tui", SAMPLES / "copied", "--serve", "--port", str(port))
    assert done.code == 2
    assert f"port {port} cannot be used" in done.err


def test_options_that_do_not_go_together() -> None:
    assert run("tui", "--allow-write").code == 2
    assert run("tui", "--serve", "--allow-write", "--read-only").code == 2
