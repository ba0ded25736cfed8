"""A real Chromium without a window, driven through the Chrome DevTools Protocol."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp

TIMEOUT_S = 60.0
NAMES = ("chromium", "chromium-browser", "google-chrome")
# As root, in a container: no sandbox, little shared memory, no service of the vendor.
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio"),
    *("--remote-debugging-port=0", "--force-device-scale-factor=1", "--window-size=1280,1000"),
)


def chromium() -> str | None:
    """The path of the browser, None if there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Chromium:
    """One page. Use it as a context manager. errors: what the page logged as an error."""

    def __init__(self) -> None:
        # A short path: Chromium has sockets in it, whose paths are limited to 107 characters.
        self._temporary = tempfile.TemporaryDirectory(prefix="chromium_", ignore_cleanup_errors=True)
        self._folder = Path(self._temporary.name)
        self.errors: list[str] = []
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Chromium:
        command = [str(chromium()), *FLAGS, f"--user-data-dir={self._folder}", "about:blank"]
        own = dict.fromkeys(("HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"), str(self._folder))
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | own
        )
        self._thread.start()
        try:
            self._do(self._connect())
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        self._process.wait(TIMEOUT_S)
        self._do(self._session.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(TIMEOUT_S)
        self._temporary.cleanup()

    def call(self, method: str, **params: Any) -> Any:
        """A command of the protocol and its result."""
        return self._do(self._call(method, params))

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page, after its promise; None if it fails, as while it loads."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        return None if "exceptionDetails" in found else found["result"].get("value")

    def wait(self, script: str, what: str = "", turn: Callable[[], None] = lambda: time.sleep(0.05)) -> Any:
        """Call `turn` until an expression is true, and return its value."""
        until_s = time.monotonic() + TIMEOUT_S
        while time.monotonic() < until_s:
            if value := self.evaluate(script):
                return value
            turn()
        text = self.evaluate("document.body?.innerText")
        raise AssertionError(f"waited {TIMEOUT_S:.0f} s for {what or script}; the page: {text}")

    def key(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if len(key) == 1 and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, **text)

    def screenshot(self, file: Path, **options: Any) -> None:
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", **options)["data"]))

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(TIMEOUT_S)

    async def _connect(self) -> None:
        self._session = aiohttp.ClientSession()
        file = self._folder / "DevToolsActivePort"
        while not file.exists() or not file.read_text().partition("\n")[2]:
            assert self._process.poll() is None, "Chromium has ended"
            await asyncio.sleep(0.05)
        port = file.read_text().partition("\n")[0]
        async with self._session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            targets = json.loads(await answer.text())
        url = next(one["webSocketDebuggerUrl"] for one in targets if one["type"] == "page")
        self._socket = await self._session.ws_connect(url, max_msg_size=0)
        self._reader = asyncio.create_task(self._read())

    async def _call(self, method: str, params: dict[str, Any]) -> Any:
        number = len(self._answers)
        self._answers[number] = answer = self._loop.create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        return await asyncio.wait_for(answer, TIMEOUT_S)

    async def _read(self) -> None:
        async for one in self._socket:
            message = json.loads(one.data)
            if "id" in message:
                answer = self._answers[message["id"]]
                if "error" in message:
                    answer.set_exception(AssertionError(message["error"]["message"]))
                else:
                    answer.set_result(message["result"])
            elif message["method"] == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(message["params"]["exceptionDetails"])[:500])
            elif message["method"] == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
                entry = message["params"]["entry"]
                self.errors.append(f"{entry['text']} {entry.get('url')}")
