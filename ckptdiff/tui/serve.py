"""The app in a browser on this machine: textual-serve behind a token and an origin check.

Whoever has the address sees what the user sees, so it is bound to 127.0.0.1, the address holds
a token that nobody can guess, and pages of other origins cannot open the socket.
"""

from __future__ import annotations

import secrets
import shlex
import socket
import sys

from aiohttp import web
from aiohttp.typedefs import Handler
from textual_serve.server import Server

from ckptdiff.errors import UsageError
from ckptdiff.tui.state import Options

HOST = "127.0.0.1"
_TOKEN = "token"


class LocalServer(Server):
    """Serves one app a connection. `url` is the one address that opens it."""

    def __init__(self, options: Options, port: int) -> None:
        self._socket = _bound(port)
        port = self._socket.getsockname()[1]
        super().__init__(command(options), host=HOST, port=port, title="ckptdiff")
        self.token = secrets.token_urlsafe(24)
        # Cookies know nothing of ports: each server has a name of its own.
        self._cookie = f"ckptdiff-{port}"
        self._hosts = {f"{HOST}:{port}", f"localhost:{port}"}

    @property
    def url(self) -> str:
        return f"{self.public_url}/?{_TOKEN}={self.token}"

    async def _make_app(self) -> web.Application:
        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._answer(request, handler)

        app = await super()._make_app()
        app.middlewares.append(guard)
        return app

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if (reason := self.refusal(request)) is not None:
            return web.Response(status=403, text=f"{reason}\n")
        if _TOKEN in request.query and request.path == "/":
            # The token moves to a cookie: out of the address bar, history and referrers.
            moved = web.Response(status=303, headers={"Location": "/", **self._headers()})
            moved.set_cookie(self._cookie, self.token, httponly=True, samesite="Strict", path="/")
            return moved
        response = await handler(request)
        if not response.prepared:
            response.headers.update(self._headers())
        return response

    def refusal(self, request: web.Request) -> str | None:
        """Why a request is not answered, None when it may be."""
        if request.host not in self._hosts:
            return "this server answers to 127.0.0.1 alone"
        origin = request.headers.get("Origin")
        if origin is not None and origin != f"http://{request.host}":
            return "another page's requests are not answered"
        if request.path == "/ws" and origin is None:
            return "a browser says which page it comes from"
        given = request.query.get(_TOKEN) or request.cookies.get(self._cookie) or ""
        if not secrets.compare_digest(given.encode(), self.token.encode()):
            return "open the whole address that `ckptdiff tui --serve` printed"
        return None

    def _headers(self) -> dict[str, str]:
        here = f"ws://{HOST}:{self.port} ws://localhost:{self.port}"
        return {
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
            "X-Frame-Options": "DENY",
            # Nothing from elsewhere, not even the fonts that the template asks for.
            "Content-Security-Policy": "default-src 'self' data:; script-src 'self' "
            "'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
            f"connect-src 'self' {here}; frame-ancestors 'none'",
        }

    async def on_startup(self, app: web.Application) -> None:
        sys.stderr.write(f"{self.url}\nOpen this address in a browser here. Ctrl-C ends it.\n")
        sys.stderr.flush()

    def serve(self, debug: bool = False) -> None:
        """Serve until interrupted."""
        self.debug = debug
        web.run_app(self._make_app(), sock=self._socket, print=None, access_log=None)


def command(options: Options) -> str:
    """The shell command that runs the app for one connection."""
    words = [sys.executable, "-m", "ckptdiff", "tui", "--theme", options.theme]
    words.append("--watch" if options.watch else "--no-watch")
    words += ["--read-only"] if options.read_only else []
    words += ["--base", options.base] if options.base is not None else []
    words += ["--config", options.config] if options.config is not None else []
    return shlex.join([*words, "--", options.root])


def serve(options: Options, port: int) -> None:
    """Serve the app on 127.0.0.1 until interrupted. Raises `UsageError` for a taken port."""
    LocalServer(options, port).serve()


def _bound(port: int) -> socket.socket:
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((HOST, port))
        found.listen()  # before the address is printed: whoever reads it may come at once
    except OSError as error:
        found.close()
        raise UsageError(
            f"port {port} cannot be used: {error.strerror}", "Name another one by --port, or none."
        ) from error
    return found
