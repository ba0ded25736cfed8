"""The review page's server: what it lists, serves and saves; conflicts, bad input, a full disk."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from dataset_cases import LABELS, collect

from edge_vision.dataset import folder as folder_module
from edge_vision.dataset.folder import COCO_FILE, DatasetFolder
from edge_vision.dataset.review import review_app
from edge_vision.web.access import Access
from edge_vision.web.server import listening

DOG = {"label": "dog", "bbox": [1, 2, 30, 40]}


class Page:
    """A browser's requests."""

    def __init__(self, client: aiohttp.ClientSession, url: str) -> None:
        self.client, self.url = client, url

    async def get(self, path: str) -> tuple[int, object]:
        async with self.client.get(f"{self.url}/{path}") as answer:
            return answer.status, await answer.json()

    async def save(self, name: str, revision: object, state: object, boxes: object) -> tuple[int, dict]:
        body = json.dumps({"revision": revision, "state": state, "boxes": boxes})
        async with self.client.put(f"{self.url}/pictures/{name}", data=body) as answer:
            return answer.status, await answer.json()


def served(folder: DatasetFolder, use: Callable[[Page], Awaitable[None]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        access = Access("127.0.0.1", probe.getsockname()[1])

    async def main() -> None:
        async with listening(review_app(access, folder)), aiohttp.ClientSession() as client:
            await use(Page(client, access.url.rstrip("/")))

    asyncio.run(main())


@pytest.fixture
def folder(tmp_path: Path) -> DatasetFolder:
    return collect(tmp_path / "new", 3)


def test_the_page_lists_and_shows_the_pictures(folder: DatasetFolder) -> None:
    async def use(page: Page) -> None:
        status, listed = await page.get("pictures")
        assert status == 200 and [one["name"] for one in listed["pictures"]] == folder.names()
        assert listed["labels"] == list(LABELS) and listed["damaged"] == []
        name = folder.names()[0]
        status, record = await page.get(f"pictures/{name}")
        assert record["proposals"][0]["label"] == "person" and record["revision"] == 0
        async with page.client.get(f"{page.url}/images/{name}.jpg") as answer:
            assert answer.content_type == "image/jpeg"
            assert await answer.read() == folder.image_path(name).read_bytes()
        for path in ("", "review.js", "review.css", "icon.svg"):
            async with page.client.get(f"{page.url}/{path}") as answer:
                assert answer.status == 200

    served(folder, use)


def test_the_page_needs_no_other_server() -> None:
    static = Path(folder_module.__file__).parent / "static"
    for file in static.iterdir():
        text = file.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text and "https://" not in text and "//cdn" not in text, file.name


def test_a_review_is_saved_at_once_and_in_the_annotations_at_the_end(folder: DatasetFolder) -> None:
    first, second, third = folder.names()

    async def use(page: Page) -> None:
        status, record = await page.save(first, 0, "open", [DOG])
        assert (status, record["state"], record["revision"]) == (200, "open", 1)
        assert folder.read(first).boxes is not None, "a change alone is kept, too"
        status, record = await page.save(first, 1, "accepted", [DOG, DOG])
        assert (status, record["state"], len(record["boxes"])) == (200, "accepted", 2)
        assert (await page.save(second, 0, "rejected", None))[0] == 200
        assert (await page.save(third, 0, "accepted", []))[0] == 200
        assert [folder.read(name).state for name in folder.names()] == ["accepted", "rejected", "accepted"]

    served(folder, use)
    found = json.loads((folder.folder / COCO_FILE).read_text("utf-8"))
    assert [one["file_name"] for one in found["images"]] == [f"{first}.jpg", f"{third}.jpg"]
    assert [one["bbox"] for one in found["annotations"]] == [[1, 2, 30, 40]] * 2


def test_the_slower_of_two_reviewers_gets_the_present_state(folder: DatasetFolder) -> None:
    name = folder.names()[0]

    async def use(page: Page) -> None:
        answers = await asyncio.gather(*(page.save(name, 0, "accepted", [DOG] * n) for n in (1, 2, 3)))
        assert sorted(status for status, _ in answers) == [200, 409, 409]
        winner = next(record for status, record in answers if status == 200)
        assert (await page.get(f"pictures/{name}"))[1] == winner
        assert "another reviewer" in next(record for status, record in answers if status == 409)["error"]

    served(folder, use)


@pytest.mark.parametrize(
    ("revision", "state", "boxes", "needle"),
    [
        ("0", "accepted", None, "revision '0'"),
        (True, "accepted", None, "revision True"),
        (0, "kept", None, "state: expected one of"),
        (0, "accepted", [{"label": "", "bbox": [1, 2, 3, 4]}], "label: expected 1 to"),
        (0, "accepted", [{"label": "dog", "bbox": [1, 2, 0, 4]}], "above 0"),
        (0, "accepted", [{"label": "dog", "bbox": [1, 2, 3]}], "got:"),
        (0, "accepted", [{"label": "dog", "bbox": [1, 2, "3", 4]}], "finite"),
        (0, "accepted", [{"label": "dog", "bbox": [5000, 2, 3, 4]}], "within 96 x 64 px"),
        (0, "accepted", [DOG] * 1001, "at most 1000"),
        (0, "accepted", {"label": "dog"}, "boxes: expected a list"),
        (0, "accepted", [7], "got:"),
    ],
)
def test_bad_input_is_refused_with_what_was_expected(folder, revision, state, boxes, needle) -> None:
    name = folder.names()[0]

    async def use(page: Page) -> None:
        status, answer = await page.save(name, revision, state, boxes)
        assert status == 400 and needle in answer["error"]
        assert folder.read(name).revision == 0

    served(folder, use)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b"\xff\xfe", b'{"revision": NaN}', b"[" * 50_000])
def test_a_damaged_body_is_refused(folder: DatasetFolder, body: bytes) -> None:
    async def use(page: Page) -> None:
        path = f"{page.url}/pictures/{folder.names()[0]}"
        async with page.client.put(path, data=body, headers={"Content-Type": "application/json"}) as answer:
            assert answer.status == 400 and "expected" in (await answer.json())["error"]

    served(folder, use)


def test_an_unknown_character_set_is_refused(folder: DatasetFolder) -> None:
    async def use(page: Page) -> None:
        path = f"{page.url}/pictures/{folder.names()[0]}"
        headers = {"Content-Type": "application/json; charset=none"}
        async with page.client.put(path, data=b"{}", headers=headers) as answer:
            assert answer.status == 400 and "expected JSON" in (await answer.json())["error"]

    served(folder, use)


def test_a_link_in_the_folder_is_not_served(folder: DatasetFolder, tmp_path: Path) -> None:
    name = folder.names()[0]
    (tmp_path / "private").write_bytes(b"private")
    folder.image_path(name).unlink()
    folder.image_path(name).symlink_to(tmp_path / "private")

    async def use(page: Page) -> None:
        async with page.client.get(f"{page.url}/images/{name}.jpg") as answer:
            assert answer.status == 404 and b"private" not in await answer.read()

    served(folder, use)


def test_no_path_leads_out_of_the_folder(folder: DatasetFolder) -> None:
    (folder.folder / "images" / "secret.jpg").write_bytes(b"private")

    async def use(page: Page) -> None:
        for path in ("pictures/..%2f..%2fetc%2fpasswd", "images/secret.jpg", "images/..%2flabels.json.jpg"):
            async with page.client.get(f"{page.url}/{path}") as answer:
                assert answer.status == 404 and b"private" not in await answer.read(), path
        assert (await page.save("..%2fx", 0, "accepted", None))[0] == 400

    served(folder, use)


def test_a_page_of_another_site_changes_nothing(folder: DatasetFolder) -> None:
    name = folder.names()[0]

    async def use(page: Page) -> None:
        headers = {"Origin": "http://evil.example"}
        async with page.client.put(f"{page.url}/pictures/{name}", data="{}", headers=headers) as answer:
            assert answer.status == 403
        assert folder.read(name).revision == 0

    served(folder, use)


def test_a_full_disk_is_reported_and_the_old_record_stays(
    folder: DatasetFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = folder.names()[0]

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def use(page: Page) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(folder_module, "write_file", full)
            status, answer = await page.save(name, 0, "accepted", [DOG])
        assert status == 507 and "No space left on device; free some space" in answer["error"]
        assert folder.read(name).revision == 0
        assert (await page.save(name, 0, "accepted", [DOG]))[0] == 200

    served(folder, use)


def test_a_picture_that_the_collector_removed_meanwhile_is_a_404(folder: DatasetFolder) -> None:
    name = folder.names()[0]

    async def use(page: Page) -> None:
        folder.make_room(0)
        assert (await page.get(f"pictures/{name}"))[0] == 404
        assert (await page.save(name, 0, "accepted", None))[0] == 400

    served(folder, use)
