"""A small HTTP server for pages of this package: static files from memory, no external resource.

Loopback without a token, any other address with one. `make_app` returns an aiohttp application, to which a
page adds its routes; `run` serves it until it is stopped.
"""

from __future__ import annotations

import asyncio
import html
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from edge_vision.web.access import SAFE_METHODS, Access, listen_error

MAX_BODY_BYTES = 1 << 20
WRONG_TOKEN_DELAY_S = 0.5
SHUTDOWN_S = 1.0
MAX_IDLE = 128
"""Connections without an admitted request: whoever reaches the port may open them. The newest ones stay."""
ACCESS = web.AppKey("access", Access)
_Connections = dict[web.RequestHandler, None]
_IDLE = web.AppKey("idle", _Connections)
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # A new version of the package must not meet scripts of the old one.
    "Cache-Control": "no-store",
}
_LOGIN = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>edge_vision</title>
<form><p>{text}</p><label>Token <input name="token" type="password" autocomplete="off" autofocus></label>
<button>Open</button></form></html>
"""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ListenError(Exception):
    """The port cannot be opened. The message has the address, the reason and the remedy."""


def make_app(access: Access, folder: Path, max_body_bytes: int = MAX_BODY_BYTES) -> web.Application:
    """An application that serves the files of a folder, `index.html` as `/`, to whoever `access` lets in.

    folder: .html, .js, .css and .svg files, read once. Every route that is added later is guarded, too.
    """
    app = web.Application(middlewares=[_guard], client_max_size=max_body_bytes)
    app[ACCESS], app[_IDLE] = access, {}
    app.on_response_prepare.append(_add_headers)
    for file in sorted(folder.iterdir()):
        if file.suffix in _TYPES:
            name = "" if file.name == "index.html" else file.name
            app.router.add_get(f"/{name}", _file(file.read_bytes(), _TYPES[file.suffix]))
    return app


@asynccontextmanager
async def listening(app: web.Application) -> AsyncIterator[None]:
    """Serve in this context. Raises ListenError if the port cannot be opened."""
    access = app[ACCESS]
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S, handler_cancellation=True)
    await runner.setup()
    try:
        try:
            make = _connections_of(runner, app[_IDLE])
            server = await asyncio.get_running_loop().create_server(make, access.address, access.port)
        except (OSError, OverflowError) as error:
            raise ListenError(listen_error(access.address, access.port, error)) from error
        try:
            yield
        finally:
            server.close()
    finally:
        await runner.cleanup()


def _connections_of(runner: web.AppRunner, idle: _Connections) -> Callable[[], web.RequestHandler]:
    """What accepts a connection, and aborts the oldest idle ones beyond MAX_IDLE."""
    server, loop = runner.server, asyncio.get_running_loop()
    assert server is not None

    def accept() -> web.RequestHandler:
        while len(idle) >= MAX_IDLE:
            oldest = next(iter(idle))
            del idle[oldest]
            # Later: of many that are accepted at once, the oldest may not be connected yet.
            loop.call_soon(_abort, oldest)
        accepted = server()
        idle[accepted] = None
        return accepted

    return accept


def _abort(connection: web.RequestHandler) -> None:
    if connection.transport is not None:
        connection.transport.abort()


async def run(app: web.Application, stop: asyncio.Event, announce: Callable[[], None]) -> None:
    """Serve until `stop` is set. announce: called once the port is open. Raises ListenError."""
    async with listening(app):
        announce()
        await stop.wait()


def _file(data: bytes, kind: str) -> Handler:
    async def get(request: web.Request) -> web.Response:
        return web.Response(body=data, content_type=kind, charset="utf-8")

    return get


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    access = request.config_dict[ACCESS]
    refusal = access.refusal(request.method, request.headers)
    if refusal:
        return web.Response(status=403, text=f"refused: {refusal}\n")
    if not access.token:
        return await _admit(request, handler)
    # A link with the token: the cookie replaces it, so that it stays out of the history and the page.
    given = request.query.get("token", "")
    if given and request.method in SAFE_METHODS and access.knows(given):
        opened = web.HTTPSeeOther("/" + request.path.lstrip("/"))
        opened.set_cookie(access.cookie, given, httponly=True, samesite="Strict", path="/")
        raise opened
    bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if not given and (access.knows(request.cookies.get(access.cookie, "")) or access.knows(bearer)):
        return await _admit(request, handler)
    if given or bearer:
        await asyncio.sleep(WRONG_TOKEN_DELAY_S)
    text = "The token is wrong." if given or bearer else "Enter the token that the server printed."
    return web.Response(status=401, text=_LOGIN.format(text=html.escape(text)), content_type="text/html")


async def _admit(request: web.Request, handler: Handler) -> web.StreamResponse:
    idle = request.config_dict[_IDLE]
    idle.pop(request.protocol, None)
    try:
        return await handler(request)
    finally:
        idle[request.protocol] = None
