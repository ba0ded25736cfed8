"""The review page: its pictures and their records, as routes of a server. Imports no ROS."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from aiohttp import web

from edge_vision.dataset.coco import IMAGE_SUFFIX
from edge_vision.dataset.errors import DatasetError, ReviewConflict
from edge_vision.dataset.folder import DatasetFolder
from edge_vision.dataset.picture import Picture, parse_boxes
from edge_vision.web.access import Access
from edge_vision.web.server import make_app

STATIC = Path(__file__).parent / "static"
COCO_PERIOD_S = 5.0
"""The annotations follow the reviews within this time."""


def review_app(access: Access, folder: DatasetFolder) -> web.Application:
    """The application. Several browsers, and several servers of one folder, may review at the same time."""
    app = make_app(access, STATIC)
    review = _Review(folder)
    app.router.add_get("/pictures", review.answer_list)
    app.router.add_get("/pictures/{name}", review.answer_picture)
    app.router.add_put("/pictures/{name}", review.answer_save)
    app.router.add_get(f"/images/{{name}}{IMAGE_SUFFIX}", review.answer_image)
    app.cleanup_ctx.append(review.follow)
    return app


class _Review:
    """Files are read and written in other threads: a slow disk delays one answer only."""

    def __init__(self, folder: DatasetFolder) -> None:
        self._folder, self._stale = folder, False

    async def follow(self, app: web.Application) -> AsyncIterator[None]:
        """Writes the annotations while the server runs, and when it ends."""
        task = asyncio.create_task(self._write_often())
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await self._write()

    async def _write_often(self) -> None:
        while True:
            await asyncio.sleep(COCO_PERIOD_S)
            await self._write()

    async def _write(self) -> None:
        if self._stale:
            self._stale = False
            try:
                await asyncio.to_thread(self._folder.write_coco)
            except OSError:  # The records are complete: the next command on the folder writes it.
                self._stale = True

    async def answer_list(self, request: web.Request) -> web.Response:
        def read() -> dict[str, Any]:
            damaged: list[str] = []
            pictures = [
                {key: getattr(one, key) for key in ("name", "state", "reason", "classes", "collected")}
                for one in self._folder.pictures(damaged)
            ]
            return {"pictures": pictures, "labels": self._folder.labels(), "damaged": damaged}

        return web.json_response(await asyncio.to_thread(read))

    async def answer_picture(self, request: web.Request) -> web.Response:
        try:
            picture = await asyncio.to_thread(self._folder.read, request.match_info["name"])
        except DatasetError as error:
            return _refused(404, error)
        return web.json_response(_shown(picture))

    async def answer_image(self, request: web.Request) -> web.StreamResponse:
        try:
            data = await asyncio.to_thread(self._folder.image, request.match_info["name"])
        except (DatasetError, OSError) as error:
            return _refused(404, error)
        return web.Response(body=data, content_type="image/jpeg")

    async def answer_save(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        try:
            revision, state, boxes = _change(await request.text())
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            return _refused(400, f"expected JSON with revision, state and boxes, got: {error!s:.200}")
        now = datetime.now(timezone.utc)
        try:
            picture = await asyncio.to_thread(self._folder.review, name, revision, state, boxes, now)
        except ReviewConflict as error:
            return _refused(409, error)
        except DatasetError as error:
            return _refused(400, error)
        except OSError as error:
            return _refused(
                507, f"not saved: {error.strerror or error}; free some space, then change it again"
            )
        self._stale = True
        return web.json_response(_shown(picture))


def _change(text: str) -> tuple[int, str, Any]:
    given = json.loads(text)
    revision, boxes = given["revision"], given["boxes"]
    if type(revision) is not int:
        raise ValueError(f"revision {revision!r:.80}")
    return revision, str(given["state"]), None if boxes is None else parse_boxes(boxes)


def _shown(picture: Picture) -> dict[str, Any]:
    # Hashes exceed JavaScript's integers.
    hidden = ("picture_hash", "crop_hash")
    return {key: value for key, value in asdict(picture).items() if key not in hidden}


def _refused(status: int, error: object) -> web.Response:
    return web.json_response({"error": str(error)}, status=status)
