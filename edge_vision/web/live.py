"""The live page: its WebSocket and its parameters, as routes of a server. Imports no ROS."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any, Protocol

from aiohttp import WSMsgType, web

from edge_vision.web.access import Access
from edge_vision.web.hub import MAX_CLIENTS, Hub, HubClient, strict_json
from edge_vision.web.server import make_app

STATIC = Path(__file__).parent / "static" / "live"
MAX_MESSAGE_BYTES = 8192
HEARTBEAT_S = 10.0
SEND_S = 20.0
"""A browser that takes nothing for this long is disconnected; the page connects again."""
GOING_AWAY, UNSUPPORTED, TRY_AGAIN_LATER = 1001, 1003, 1013


class ParameterAccess(Protocol):
    """Reads and sets parameters of running nodes. Both wait for the nodes; any thread."""

    def read(self, camera: str) -> list[dict[str, Any]]:
        """The parameters: node, name, value, description, limits, read_only. Raises ValueError."""

    def write(self, camera: str, node: str, name: str, value: Any) -> None:
        """Set one parameter. Raises ValueError with the node's reason."""


def live_app(access: Access, hub: Hub, parameters: ParameterAccess, may_set: bool = False) -> web.Application:
    """The application of the page. may_set: whether browsers may set parameters; needs a token.

    Raises ValueError.
    """
    if may_set and not access.token:
        raise ValueError("expected a token, as parameters may be set")
    app = make_app(access, STATIC, MAX_MESSAGE_BYTES)

    async def socket(request: web.Request) -> web.StreamResponse:
        return await _socket(request, hub)

    async def read(request: web.Request) -> web.Response:
        camera = request.query.get("camera", "")
        try:
            found = await asyncio.to_thread(parameters.read, camera)
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=503)
        return web.json_response({"may_set": may_set, "parameters": found}, dumps=strict_json)

    async def write(request: web.Request) -> web.Response:
        if not may_set:
            return web.json_response({"error": "the server runs without --allow-control"}, status=403)
        try:
            wanted = await request.json()
            camera, node, name = (wanted[key] for key in ("camera", "node", "name"))
            value = wanted["value"]
            if not all(isinstance(text, str) for text in (camera, node, name)):
                raise TypeError
        except (ValueError, LookupError, TypeError, RecursionError):
            error = "expected JSON with camera, node, name and value"
            return web.json_response({"error": error}, status=400)
        try:
            await asyncio.to_thread(parameters.write, camera, node, name, value)
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({})

    app.router.add_get("/socket", socket)
    app.router.add_get("/parameters", read)
    app.router.add_post("/parameters", write)
    app[_SOCKETS] = set()
    app.on_shutdown.append(_close_sockets)
    return app


_SOCKETS = web.AppKey("sockets", set[web.WebSocketResponse])


async def _socket(request: web.Request, hub: Hub) -> web.StreamResponse:
    socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S, compress=False, max_msg_size=MAX_MESSAGE_BYTES)
    await socket.prepare(request)
    loop, filled = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # The loop has ended.
            loop.call_soon_threadsafe(filled.set)

    client = hub.join(wake)
    if client is None:
        text = f"at most {MAX_CLIENTS} pages at a time"
        await socket.close(code=TRY_AGAIN_LATER, message=text.encode())
        return socket
    request.app[_SOCKETS].add(socket)
    sender = asyncio.create_task(_send(socket, request.transport, client, filled))
    try:
        await _receive(socket, client)
    finally:
        hub.leave(client)
        sender.cancel()
        request.app[_SOCKETS].discard(socket)
        # A browser that has stopped would keep what it does not take for as long as its connection lives.
        if request.transport is not None and request.transport.get_write_buffer_size():
            request.transport.abort()
    return socket


async def _receive(socket: web.WebSocketResponse, client: HubClient) -> None:
    """Read until the browser leaves, or the connection is aborted."""
    async for message in socket:
        if message.type is not WSMsgType.TEXT:
            return
        try:
            client.receive(message.data)
        except (ValueError, RecursionError) as error:
            await socket.close(code=UNSUPPORTED, message=f"{error}".encode()[:100])
            return


async def _send(
    socket: web.WebSocketResponse,
    transport: asyncio.Transport | None,
    client: HubClient,
    filled: asyncio.Event,
) -> None:
    """Send what the client holds, until the browser takes nothing for SEND_S. Each browser has its task."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError, RuntimeError):
        while transport is not None:
            await filled.wait()
            filled.clear()
            # Cheaper than a timeout of each message.
            deadline = loop.call_later(SEND_S, transport.abort)
            try:
                for message in client.take():
                    if isinstance(message, bytes):
                        await socket.send_bytes(message)
                    else:
                        await socket.send_str(message)
            finally:
                deadline.cancel()


async def _close_sockets(app: web.Application) -> None:
    """Browsers learn that the server ends: pages connect again when it is back."""
    sockets = app[_SOCKETS]
    for socket in tuple(sockets):
        with contextlib.suppress(asyncio.TimeoutError, ConnectionError):
            await asyncio.wait_for(socket.close(code=GOING_AWAY, message=b"the server ends"), 0.5)
