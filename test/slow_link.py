"""A TCP proxy that delays: `python test/slow_link.py PORT`, a process of its own.

It replaces `tc netem` on kernels without it. Each direction is delayed by half of the round trip. A loss is a
pause of 200 ms in one direction, Linux's least retransmission timeout, of a block of up to 64 kB.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from pathlib import Path

LOSS_S = 0.2


class SlowLink:
    """A proxy to a port on 127.0.0.1."""

    def __init__(self, port: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def set(self, round_trip_ms: float, loss: float = 0.0) -> None:
        """loss: 0..1. In force for what is sent from now on."""
        assert self._process.stdin
        print(round_trip_ms, loss, file=self._process.stdin, flush=True)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class _Link:
    delay_s, loss = 0.0, 0.0

    def read_setting(self) -> None:
        line = sys.stdin.readline()
        if not line:
            sys.exit()
        round_trip_ms, loss = map(float, line.split())
        self.delay_s, self.loss = round_trip_ms / 2e3, loss

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        blocks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)
        now_s = asyncio.get_running_loop().time

        async def send() -> None:
            while True:
                at_s, block = await blocks.get()
                await asyncio.sleep(max(0.0, at_s - now_s()))
                if not block:
                    break
                writer.write(block)
                await writer.drain()
            writer.close()

        sending = asyncio.create_task(send())
        try:
            block = b"-"
            while block:
                block = await reader.read(1 << 16)
                lost_s = LOSS_S if random.random() < self.loss else 0.0
                await blocks.put((now_s() + self.delay_s + lost_s, block))
        except ConnectionError:
            await blocks.put((0.0, b""))
        await sending

    async def serve(self, port: int) -> None:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                ends = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                writer.transport.abort()
                return
            await asyncio.gather(
                self.carry(reader, ends[1]), self.carry(ends[0], writer), return_exceptions=True
            )

        server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=1 << 20)
        print(server.sockets[0].getsockname()[1], flush=True)
        asyncio.get_running_loop().add_reader(sys.stdin, self.read_setting)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_Link().serve(int(sys.argv[1])))
