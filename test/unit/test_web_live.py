"""The live page without ROS: its hub, its WebSocket with slow and dead browsers, its parameters."""

from __future__ import annotations

import asyncio
import json
import math
import re
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from test_web_server import TOKEN, free_port

from edge_vision.core.diagnostic_status import StatusEntry
from edge_vision.web import live
from edge_vision.web.access import Access
from edge_vision.web.hub import (
    MAX_CLIENTS,
    MAX_RECORDS,
    MAX_UNANSWERED,
    MAX_WATCHED,
    Hub,
    HubClient,
    pack_frame,
    unpack_frame,
)
from edge_vision.web.live import STATIC, live_app
from edge_vision.web.server import listening
from edge_vision.web.status_view import status_view

JPEG = b"\xff\xd8" + bytes(50_000)


def frame(number: int, camera: str = "/front") -> bytes:
    return pack_frame({"camera": camera, "stamp": str(number), "boxes": [[1, 2, 3, 4, 0.5, "7", "12"]]}, JPEG)


def frames_of(messages: list[str | bytes]) -> list[str]:
    return [unpack_frame(one)[0]["stamp"] for one in messages if isinstance(one, bytes)]


def strict(text: str) -> Any:
    """As JSON.parse of a browser, which knows no NaN and Infinity."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


# The hub.
def joined(hub: Hub, *watched: str) -> HubClient:
    client = hub.join(lambda: None)
    assert client is not None
    client.receive(json.dumps({"watch": watched}))
    return client


def test_a_frame_is_packed_and_unpacked() -> None:
    assert unpack_frame(frame(2**62)) == (
        {"camera": "/front", "stamp": str(2**62), "boxes": [[1, 2, 3, 4, 0.5, "7", "12"]]},
        JPEG,
    )


def test_numbers_that_are_not_finite_are_texts() -> None:
    message = pack_frame({"age_ms": math.inf, "boxes": [(1.5, math.nan)], "kind": "nan"}, JPEG)
    header = strict(message[4 : -len(JPEG)].decode())
    assert header == {"age_ms": "inf", "boxes": [[1.5, "nan"]], "kind": "nan"}
    hub = Hub()
    hub.send_text("status", "/front", status={"figures": [["age", -math.inf]]})
    assert strict(str(joined(hub).take()[0]))["status"] == {"figures": [["age", "-inf"]]}


def test_a_browser_that_draws_nothing_receives_two_frames_and_then_the_newest() -> None:
    hub = Hub()
    slow, fast = joined(hub, "/front"), joined(hub, "/front")
    received: dict[str, list[str]] = {"slow": [], "fast": []}
    for number in range(100):
        hub.send_frame("/front", frame(number))
        received["slow"] += frames_of(slow.take())
        received["fast"] += (found := frames_of(fast.take()))
        for _ in found:
            fast.receive('{"drawn": 1}')
        assert slow.held_bytes <= len(frame(number))
    assert received == {"slow": [str(n) for n in range(MAX_UNANSWERED)], "fast": [str(n) for n in range(100)]}
    slow.receive('{"drawn": 1}')
    assert frames_of(slow.take()) == ["99"]


def test_only_watched_cameras_are_sent() -> None:
    hub = Hub()
    client = joined(hub, "/front")
    assert hub.watched == {"/front"}
    hub.send_frame("/rear", frame(1, "/rear"))
    hub.send_records("/rear", [[1.0, "gated", "still", None]])
    assert client.take() == []
    hub.send_frame("/front", frame(2))
    hub.send_records("/front", [[1.0, "gated", "still", None]])
    client.receive('{"watch": []}')
    assert client.take() == [] and client.held_bytes == 0 and hub.watched == frozenset()
    hub.leave(client)
    assert hub.clients == []


def test_records_and_texts_are_bounded_and_the_newest_win() -> None:
    hub = Hub()
    client = joined(hub, "/front")
    for number in range(3 * MAX_RECORDS):
        hub.send_records("/front", [[float(number), "gated", "still", None]])
        hub.send_text("status", "/front", status=number)
    texts = [json.loads(one) for one in client.take()]
    assert texts[0] == {"kind": "status", "camera": "/front", "status": 3 * MAX_RECORDS - 1}
    assert len(texts) == 2 and len(texts[1]["records"]) == MAX_RECORDS
    assert texts[1]["records"][-1][0] == 3 * MAX_RECORDS - 1
    assert json.loads(str(joined(hub).take()[0]))["status"] == 3 * MAX_RECORDS - 1


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "1", "{", '{"watch": "/front"}', '{"watch": [1]}', '{"watch": {"a": 1}}'),
        json.dumps({"watch": ["x"] * (MAX_WATCHED + 1)}),
        json.dumps({"watch": ["x" * 1000]}),
    ],
)
def test_a_wrong_message_of_a_browser_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        joined(Hub()).receive(text)


# The server.
class FakeParameters:
    """Stands for the nodes. A value of 13 is refused."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {"score_threshold": 0.5}

    def read(self, camera: str) -> list[dict[str, Any]]:
        if camera != "/front":
            raise ValueError(f"expected a running pipeline, got '{camera}'")
        return [{"node": "detector", "name": name, "value": value} for name, value in self.values.items()]

    def write(self, camera: str, node: str, name: str, value: Any) -> None:
        if value == 13:
            raise ValueError("detector refused it")
        self.values[name] = value


Use = Callable[[aiohttp.ClientSession, str, Hub], Awaitable[None]]


def served(use: Use, token: str = "", may_set: bool = False) -> FakeParameters:
    hub, parameters = Hub(), FakeParameters()
    access = Access("127.0.0.1", free_port(), token)
    app = live_app(access, hub, parameters, may_set)

    async def main() -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with listening(app), aiohttp.ClientSession(headers=headers) as client:
            await use(client, f"http://127.0.0.1:{access.port}", hub)

    asyncio.run(main())
    return parameters


async def until(happened: Callable[[], Any]) -> None:
    for _ in range(6000):
        if happened():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen within 60 s")


def test_the_page_has_all_its_files_and_names_no_other_host() -> None:
    async def use(client: aiohttp.ClientSession, url: str, hub: Hub) -> None:
        async with client.get(url) as answer:
            page = await answer.text()
        names = set(re.findall(r'(?:src|href)="([^"]+)"', page))
        assert {"page.js", "page.css"} <= names
        for file in STATIC.iterdir():
            # The name of SVG's namespace is no address.
            text = file.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"https?://|//[a-z]+\.[a-z]", text), file.name
            assert "innerHTML" not in text and "style=" not in text and "eval(" not in text
            names |= set(re.findall(r'from "\./([^"]+)"', text))
        for name in names:
            async with client.get(f"{url}/{name}") as answer:
                assert answer.status == 200, name

    served(use)


def test_a_browser_receives_frames_and_the_last_status() -> None:
    async def use(client: aiohttp.ClientSession, url: str, hub: Hub) -> None:
        hub.send_text("status", "/front", status={"cause": "none"})
        async with client.ws_connect(f"{url}/socket", headers={"Origin": url}) as page:
            assert (await page.receive_json())["status"] == {"cause": "none"}
            await page.send_json({"watch": ["/front"]})
            await until(lambda: hub.watched)
            hub.send_frame("/front", frame(5))
            assert unpack_frame(await page.receive_bytes())[0]["stamp"] == "5"
        await until(lambda: not hub.clients)

    served(use)


@pytest.mark.parametrize(("headers", "status"), [({"Origin": "http://evil.example"}, 403), ({}, 401)])
def test_a_page_of_another_site_or_without_the_token_opens_no_socket(
    headers: dict[str, str], status: int
) -> None:
    async def use(client: aiohttp.ClientSession, url: str, hub: Hub) -> None:
        async with aiohttp.ClientSession() as other:
            with pytest.raises(aiohttp.WSServerHandshakeError) as error:
                await other.ws_connect(f"{url}/socket", headers=headers)
        assert error.value.status == status and hub.clients == []

    served(use, token=TOKEN)


def test_a_wrong_message_ends_that_browsers_connection_only() -> None:
    async def use(client: aiohttp.ClientSession, url: str, hub: Hub) -> None:
        async with client.ws_connect(f"{url}/socket") as good, client.ws_connect(f"{url}/socket") as bad:
            await bad.send_str('{"watch": 1}')
            assert (await bad.receive()).type is aiohttp.WSMsgType.CLOSE
            await good.send_json({"watch": ["/front"]})
            await until(lambda: hub.watched)
            hub.send_frame("/front", frame(1))
            assert await good.receive_bytes()

    served(use)


def test_too_many_pages_are_refused_with_the_number() -> None:
    async def use(client: aiohttp.ClientSession, url: str, hub: Hub) -> None:
        pages = [await client.ws_connect(f"{url}/socket") for _ in range(MAX_CLIENTS)]
        await until(lambda: len(hub.clients) == MAX_CLIENTS)
        async with client.ws_connect(f"{url}/socket") as late:
            closed = await late.receive()
            assert closed.type is aiohttp.WSMsgType.CLOSE and str(MAX_CLIENTS) in closed.extra
        for page in pages:
            await page.close()

    served(use)


def test_a_browser_that_reads_nothing_delays_no_other_and_is_disconnected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A raw socket that answers nothing, as of a stopped process, which even claims to have drawn all."""
    monkeypatch.setattr(live, "SEND_S", 0.5)

    async def use(client: aiohttp.ClientSession, url: str, hub: Hub) -> None:
        dead = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
        dead.sendall(
            b"GET /socket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        await until(lambda: hub.clients)
        stopped = hub.clients[0]
        stopped.receive('{"watch": ["/front"]}')
        async with client.ws_connect(f"{url}/socket") as page:
            await page.send_json({"watch": ["/front"]})
            await until(lambda: len(hub.clients) == 2 and all(one.watched for one in hub.clients))
            for number in range(10_000):
                hub.send_frame("/front", frame(number))
                stopped.receive('{"drawn": 1}')
                assert stopped.held_bytes <= len(frame(number))
                # No other browser waits for it.
                assert unpack_frame(await page.receive_bytes())[0]["stamp"] == str(number)
                await page.send_json({"drawn": 1})
                if stopped not in hub.clients:
                    break
        assert stopped.sent_frames < 1000, "the buffers of the kernel are bounded"
        await until(lambda: not hub.clients)
        dead.close()

    served(use)


def test_reconnecting_leaves_nothing_behind() -> None:
    async def use(client: aiohttp.ClientSession, url: str, hub: Hub) -> None:
        for _ in range(20):
            async with client.ws_connect(f"{url}/socket") as page:
                await page.send_json({"watch": ["/front"]})
                await until(lambda: hub.watched)
        await until(lambda: not hub.clients)
        await until(lambda: len(asyncio.all_tasks()) < 8)

    served(use)


def test_parameters_are_read_and_set_only_where_allowed() -> None:
    wanted = {"camera": "/front", "node": "detector", "name": "score_threshold", "value": 0.7}

    async def read_only(client: aiohttp.ClientSession, url: str, hub: Hub) -> None:
        async with client.get(f"{url}/parameters?camera=/front") as answer:
            found = await answer.json()
            assert found["may_set"] is False and found["parameters"][0]["value"] == 0.5
        async with client.get(f"{url}/parameters?camera=/none") as answer:
            assert answer.status == 503 and "expected a running pipeline" in (await answer.json())["error"]
        async with client.post(f"{url}/parameters", json=wanted) as answer:
            assert answer.status == 403 and "--allow-control" in (await answer.json())["error"]

    async def controlled(client: aiohttp.ClientSession, url: str, hub: Hub) -> None:
        async with client.post(f"{url}/parameters", json=wanted) as answer:
            assert answer.status == 200
        deep = b"[" * 8000
        for body in (b"{", b"[]", b"{}", deep, json.dumps({**wanted, "node": 5}).encode()):
            async with client.post(f"{url}/parameters", data=body) as answer:
                assert answer.status == 400 and "expected JSON" in (await answer.json())["error"]
        async with client.post(f"{url}/parameters", json={**wanted, "value": 13}) as answer:
            assert answer.status == 400 and (await answer.json())["error"] == "detector refused it"
        async with client.post(f"{url}/parameters", data=bytes(9000)) as answer:
            assert answer.status == 413
        for value, shown in ((math.nan, "nan"), (-math.inf, "-inf"), ([0.5, math.inf], [0.5, "inf"])):
            async with client.post(f"{url}/parameters", json={**wanted, "value": value}) as answer:
                assert answer.status == 200
            async with client.get(f"{url}/parameters?camera=/front") as answer:
                assert strict(await answer.text())["parameters"][0]["value"] == shown
        async with client.post(f"{url}/parameters", json=wanted) as answer:
            assert answer.status == 200
        async with aiohttp.ClientSession() as other, other.post(f"{url}/parameters", json=wanted) as answer:
            assert answer.status == 401

    assert served(read_only).values == {"score_threshold": 0.5}
    assert served(controlled, TOKEN, may_set=True).values == {"score_threshold": 0.7}
    with pytest.raises(ValueError, match="token"):
        live_app(Access("127.0.0.1", 1), Hub(), FakeParameters(), may_set=True)


# What the page shows of the statuses.
def test_a_status_without_anything_shows_nothing_as_zero() -> None:
    view = status_view({"detector": StatusEntry("detector", values={"age_ms.p50": "unavailable"})}, 0.2)
    assert view["figures"] == [] and view["audit"] is None and view["ledger"]["counts"] == {}
    assert json.loads(json.dumps(view)) == view


def test_the_view_has_cause_ledger_audit_and_figures() -> None:
    gate = {f"audit.{k}": v for k, v in (("miss_rate", "0.02"), ("miss_rate_low", "0.01"))}
    gate |= {
        "audit.miss_rate_high": "0.06",
        "audit.audited": "125",
        "audit.missed": "3",
        "audit.open": "False",
    }
    detector = {"ledger.received": "10", "ledger.inferred": "4", "ledger.gated": "6", "ledger.in_flight": "0"}
    detector |= {
        "ledger.gated.still": "6",
        "ledger.balanced": "True",
        "backend.actual.backend": "onnxruntime",
    }
    parts = {
        "output": StatusEntry("output", level=1, message="no_images: x: do y", values={"cause": "no_images"}),
        "gate": StatusEntry("gate", values=gate),
        "detector": StatusEntry("detector", level=2, message="it fails", values=detector),
        "system": StatusEntry("system", values={"power_w": "5.1", "cpu.percent": "40"}),
        "process 7": StatusEntry("process 7", values={"pid": "7", "cpu_percent": "30", "rss_mb": "200"}),
    }
    view = status_view(parts, 1.0)
    assert (view["cause"], view["level"], view["message"]) == ("no_images", "WARN", "no_images: x: do y")
    assert view["ledger"]["counts"]["gated"] == 6 and view["ledger"]["reasons"] == [["gated", "still", 6.0]]
    assert view["audit"] == {
        "rate": 0.02, "low": 0.01, "high": 0.06, "open": False, "audited": 125.0, "missed": 3.0,
    }  # fmt: skip
    assert ["Power", 5.1, "W"] in view["figures"] and view["processes"] == [["7", 30.0, 200.0]]
    assert view["problems"] == [["ERROR", "detector", "it fails"]]


def test_the_static_files_are_part_of_the_package() -> None:
    setup = (Path(__file__).parents[2] / "setup.py").read_text()
    assert '"static/*/*"' in setup and STATIC.parent.name == "static"
