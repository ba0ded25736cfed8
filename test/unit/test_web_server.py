"""The server of pages: who is let in, what it serves, and how it says that its port is taken."""

from __future__ import annotations

import argparse
import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from edge_vision.web.access import Access, access_of, add_access_options, is_loopback, new_token
from edge_vision.web.server import MAX_IDLE, ListenError, listening, make_app

TOKEN = "0123456789abcdef"
LOCAL = Access("127.0.0.1", 8080)
OPEN = Access("0.0.0.0", 8080, TOKEN, ("robot.example",))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1:8080", "127.0.0.1", "[::1]:8080"])
def test_a_loopback_server_knows_its_own_names(host: str) -> None:
    assert LOCAL.refusal("GET", {"Host": host}) == ""


@pytest.mark.parametrize(
    "host", ["", "evil.example", "192.168.0.7:8080", "localhost.evil.example", "a b", "[::1"]
)
def test_a_rebound_name_is_refused(host: str) -> None:
    assert "as Host" in LOCAL.refusal("GET", {"Host": host})


def test_an_open_server_is_addressed_by_any_address_its_name_and_given_names() -> None:
    for host in ("10.0.0.7:8080", "[fe80::1]:8080", "robot.example", "localhost", socket.gethostname()):
        assert OPEN.refusal("GET", {"Host": host}) == ""
    assert "'evil.example'" in OPEN.refusal("GET", {"Host": "evil.example"})


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://localhost:9999", "null", "http://[", "file://"]
)
def test_a_page_of_another_origin_is_refused(origin: str) -> None:
    headers = {"Host": "localhost:8080", "Origin": origin}
    assert LOCAL.refusal("POST", headers) and LOCAL.refusal("GET", headers)
    assert LOCAL.refusal("POST", headers | {"Origin": "http://localhost:8080"}) == ""


def test_another_site_may_link_here_and_no_more() -> None:
    headers = {"Host": "localhost:8080", "Sec-Fetch-Site": "cross-site"}
    assert LOCAL.refusal("GET", {**headers, "Sec-Fetch-Mode": "navigate"}) == ""
    assert LOCAL.refusal("GET", {**headers, "Sec-Fetch-Mode": "no-cors"})
    assert LOCAL.refusal("POST", {**headers, "Sec-Fetch-Mode": "navigate"})


@pytest.mark.parametrize(("address", "token"), [("0.0.0.0", ""), ("10.0.0.7", ""), ("127.0.0.1", "short")])
def test_an_open_server_needs_a_token_and_a_token_some_length(address: str, token: str) -> None:
    with pytest.raises(ValueError, match="expected a token"):
        Access(address, 8080, token)


def asked(*arguments: str, needs_token: bool = False) -> Access:
    parser = argparse.ArgumentParser()
    add_access_options(parser, 8080)
    return access_of(parser.parse_args(arguments), needs_token)


def test_the_token_is_generated_or_that_of_a_file(tmp_path: Path) -> None:
    assert asked() == LOCAL
    assert len(asked(needs_token=True).token) == len(asked("--address", "0.0.0.0").token) == 22
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    more = ("--address", "0.0.0.0", "--host-name", "Robot.Example")
    assert asked(*more, "--token-file", str(file)) == OPEN
    assert asked("--token-file", str(file), needs_token=True).token == TOKEN
    for content, text in ((b"", "expected a token in .*, got an empty file"), (b"\xff" * 20, "got 20 char")):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=text):
            asked("--token-file", str(file))
    with pytest.raises(ValueError, match="expected a file that can be read, got /nowhere: No such file"):
        asked("--token-file", "/nowhere")


def test_a_token_is_compared_whole_and_may_be_anything_that_a_header_carries() -> None:
    assert OPEN.knows(TOKEN) and LOCAL.knows("")
    assert not any(map(OPEN.knows, ("", TOKEN[:-1], TOKEN + "0", "ä", "\udcff")))
    assert len({new_token() for _ in range(100)}) == 100
    assert Access("::", 1, new_token()).url.startswith(f"http://{socket.gethostname()}:1/?token=")
    assert Access("::1", 1).url == "http://[::1]:1/"
    assert is_loopback("127.8.9.1") and not is_loopback("0.0.0.0") and not is_loopback("localhost.example")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "index.html").write_text("<!doctype html>page")
    (tmp_path / "page.js").write_text("export const one = 1;")
    (tmp_path / "secret.key").write_text("private")
    return tmp_path


def served(
    folder: Path,
    use: Callable[[aiohttp.ClientSession, str], Awaitable[None]],
    token: str = "",
    **options: Any,
) -> None:
    """Run a client against a server with a route /echo that answers with the body of a POST."""
    access = Access("127.0.0.1", free_port(), token)
    app = make_app(access, folder, **options)

    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    app.router.add_post("/echo", echo)

    async def main() -> None:
        async with listening(app), aiohttp.ClientSession() as client:
            await use(client, f"http://127.0.0.1:{access.port}")

    asyncio.run(main())


def test_files_are_served_with_a_strict_policy_and_no_others(folder: Path) -> None:
    async def use(client: aiohttp.ClientSession, url: str) -> None:
        for path, kind in (("/", "text/html"), ("/page.js", "text/javascript")):
            async with client.get(url + path) as answer:
                assert answer.status == 200 and answer.content_type == kind
                policy = answer.headers["Content-Security-Policy"]
                assert (
                    policy.startswith("default-src 'none'")
                    and "unsafe" not in policy
                    and "http" not in policy
                )
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
        for path in ("/secret.key", "/../setup.py", "/%2e%2e/setup.py", "/index.html", "//etc/passwd"):
            async with client.get(url + path) as answer:
                assert answer.status == 404 and "Content-Security-Policy" in answer.headers, path

    served(folder, use)


def test_a_page_of_another_site_reaches_no_route(folder: Path) -> None:
    async def use(client: aiohttp.ClientSession, url: str) -> None:
        for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
            async with client.post(f"{url}/echo", data=b"x", headers=headers) as answer:
                assert answer.status == 403 and "refused: expected" in await answer.text()
        async with client.post(f"{url}/echo", data=b"x", headers={"Origin": url}) as answer:
            assert answer.status == 200 and await answer.read() == b"x"

    served(folder, use)


def test_the_token_opens_the_page_once_and_stays_out_of_the_address(folder: Path) -> None:
    async def use(client: aiohttp.ClientSession, url: str) -> None:
        for path in ("/", "/page.js", "/?token=0000000000000000", "/nowhere"):
            async with client.get(url + path) as answer:
                assert answer.status == 401 and "Token" in await answer.text(), path
        async with client.post(f"{url}/echo", headers={"Authorization": f"Bearer {TOKEN}"}) as answer:
            assert answer.status == 200
        async with client.post(f"{url}/echo", headers={"Authorization": "Bearer wrong"}) as answer:
            assert answer.status == 401
        async with client.get(f"{url}/?token={TOKEN}", allow_redirects=False) as answer:
            assert answer.status == 303 and answer.headers["Location"] == "/"
            assert (
                "HttpOnly" in answer.headers["Set-Cookie"]
                and "SameSite=Strict" in answer.headers["Set-Cookie"]
            )
            client.cookie_jar.update_cookies(answer.cookies)
        cookie = {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}
        async with client.get(url, headers=cookie) as answer:
            assert answer.status == 200 and await answer.text() == "<!doctype html>page"

    served(folder, use, TOKEN)


def test_a_large_body_is_refused(folder: Path) -> None:
    async def use(client: aiohttp.ClientSession, url: str) -> None:
        async with client.post(f"{url}/echo", data=bytes(1001)) as answer:
            assert answer.status == 413

    served(folder, use, max_body_bytes=1000)


def test_idle_connections_are_bounded_and_keep_nobody_out(folder: Path) -> None:
    async def use(client: aiohttp.ClientSession, url: str) -> None:
        opened = [await asyncio.open_connection("127.0.0.1", URL(url).port) for _ in range(2 * MAX_IDLE)]
        for _, writer in opened:
            writer.write(b"GET / HT")
        async with client.get(url) as answer:
            assert answer.status == 401
        ended = [asyncio.wait_for(reader.read(), 5.0) for reader, _ in opened[:MAX_IDLE]]
        found = await asyncio.gather(*ended, return_exceptions=True)
        assert all(one == b"" or isinstance(one, ConnectionError) for one in found)
        assert not opened[-1][0].at_eof()
        for _, writer in opened:
            writer.close()

    served(folder, use, TOKEN)


def test_a_connection_in_use_outlives_any_number_of_idle_ones(folder: Path) -> None:
    async def use(client: aiohttp.ClientSession, url: str) -> None:
        async def body() -> AsyncIterator[bytes]:
            yield b"first "
            for _ in range(2 * MAX_IDLE):
                _, writer = await asyncio.open_connection("127.0.0.1", URL(url).port)
                writer.close()
            yield b"last"

        async with client.post(f"{url}/echo", data=body()) as answer:
            assert await answer.text() == "first last"

    served(folder, use)


def test_an_address_of_another_machine_is_one_clear_error(folder: Path) -> None:
    async def main() -> None:
        async with listening(make_app(Access("192.0.2.1", 8600, TOKEN), folder)):
            raise AssertionError("it listens on an address of another machine")

    with pytest.raises(
        ListenError, match=r"address of this machine, cannot listen on 192.*another --address"
    ):
        asyncio.run(main())


def test_a_taken_port_is_one_clear_error(folder: Path) -> None:
    async def main(port: int) -> None:
        async with listening(make_app(Access("127.0.0.1", port), folder)):
            raise AssertionError("it listens on a port that is taken")

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=f"cannot listen on 127.0.0.1:{port}: .*in use.*another --port"):
            asyncio.run(main(port))
