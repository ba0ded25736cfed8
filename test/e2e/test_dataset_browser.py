"""The review page in a real Chromium, by keyboard alone: what it draws, saves and reports."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from chromium_cases import Chromium, chromium
from dataset_cases import LABELS, collect

from edge_vision.dataset.folder import DatasetFolder
from edge_vision.dataset.picture import LabelledBox
from edge_vision.dataset.review import review_app
from edge_vision.web.access import Access
from edge_vision.web.server import run

pytestmark = pytest.mark.skipif(chromium() is None, reason="Chromium is not installed: apt install chromium")
STAGE = "document.getElementById('stage')"
SHIFT, ALT = 8, 1


@pytest.fixture
def folder(tmp_path: Path) -> DatasetFolder:
    return collect(tmp_path / "pictures", 4)


@pytest.fixture
def page(folder: DatasetFolder) -> Iterator[Chromium]:
    """The page with the first picture."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        access = Access("127.0.0.1", probe.getsockname()[1])
    loop, stop, listens = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
    app = review_app(access, folder)
    serving = threading.Thread(target=lambda: loop.run_until_complete(run(app, stop, listens.set)))
    serving.start()
    assert listens.wait(60.0)
    try:
        with Chromium() as browser:
            browser.open(access.url)
            shown(browser, folder.names()[0])
            yield browser
            assert browser.errors == []
    finally:
        loop.call_soon_threadsafe(stop.set)
        serving.join(60.0)
        loop.close()


def shown(browser: Chromium, name: str) -> None:
    browser.wait(f"{STAGE}?.dataset.picture === '{name}'", f"picture {name}")


def press(browser: Chromium, *keys: str, modifiers: int = 0) -> None:
    for key in keys:
        for kind in ("keyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, key=key, modifiers=modifiers)


def saved(browser: Chromium) -> None:
    browser.wait("document.getElementById('saved').textContent === 'saved'", "the change to be saved")


def test_a_picture_is_drawn_with_its_boxes(page: Chromium, folder: DatasetFolder) -> None:
    size = page.evaluate(f"[{STAGE}.width, {STAGE}.height]")
    assert size == [96, 64]
    # The left side of the box at (10, 8, 40, 50) is in the colour of boxes.
    pixel = page.evaluate(f"[...{STAGE}.getContext('2d').getImageData(10, 30, 1, 1).data]")
    colour = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--box').trim()")
    expected = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    assert max(abs(a - b) for a, b in zip(pixel[:3], expected, strict=True)) < 40, (pixel, colour)
    text = page.evaluate("document.body.innerText")
    assert "1 of 4: low_margin person" in text and "tiny 1: open" in text and "person" in text


def test_a_page_without_its_list_yet_does_not_state_that_there_are_no_pictures(page: Chromium) -> None:
    page.call("Page.addScriptToEvaluateOnNewDocument", source="window.fetch = () => new Promise(() => {})")
    page.call("Page.reload")
    page.wait(
        f"document.readyState === 'complete' && !{STAGE}.dataset.picture", "the page before its list arrives"
    )
    page.evaluate("dispatchEvent(new Event('resize'))")
    assert page.evaluate("document.getElementById('about').textContent") == ""
    assert page.evaluate("document.getElementById('counts').textContent") == ""


def test_pictures_are_accepted_and_rejected_by_keyboard(page: Chromium, folder: DatasetFolder) -> None:
    names = folder.names()
    press(page, "a")
    shown(page, names[1])
    press(page, "x")
    shown(page, names[2])
    press(page, "A")
    shown(page, names[3])
    states = [folder.read(name) for name in names]
    assert [one.state for one in states] == ["accepted", "rejected", "accepted", "open"]
    assert states[0].boxes == (LabelledBox("person", (10.0, 8.0, 30.0, 42.0)),)
    press(page, "a")
    page.wait("document.body.innerText.includes('No picture in this list')")
    assert "3 accepted" in page.evaluate("document.body.innerText")


def test_boxes_are_corrected_by_keyboard_and_saved_at_once(page: Chromium, folder: DatasetFolder) -> None:
    name = folder.names()[0]
    press(page, "Tab")
    assert page.evaluate(f"{STAGE}.dataset.chosen") == "0"
    press(page, "ArrowRight", "ArrowDown")
    press(page, "ArrowRight", modifiers=SHIFT)
    press(page, "ArrowLeft", modifiers=ALT)
    saved(page)
    found = folder.read(name)
    assert found.boxes == (LabelledBox("person", (21.0, 9.0, 29.0, 42.0)),) and found.state == "open"
    press(page, "n")
    press(page, "l")
    page.wait("document.activeElement.id === 'label'")
    page.call("Input.insertText", text="do")
    page.evaluate("document.getElementById('chooser').requestSubmit()")
    saved(page)
    page.wait("document.activeElement.id === 'stage'")
    assert [one.label for one in folder.read(name).boxes or ()] == ["person", "dog"]
    press(page, "z", "z")
    saved(page)
    assert [one.label for one in folder.read(name).boxes or ()] == ["person"]
    press(page, "Tab", "d")
    saved(page)
    assert folder.read(name).boxes == ()
    press(page, "f")
    saved(page)
    assert folder.read(name).boxes == (LabelledBox("person", (10.0, 8.0, 30.0, 42.0)),)
    press(page, "a")
    shown(page, folder.names()[1])
    assert folder.read(name).state == "accepted"


def test_what_another_reviewer_has_saved_is_shown_instead(page: Chromium, folder: DatasetFolder) -> None:
    name = folder.names()[0]
    theirs = [LabelledBox("car", (1, 2, 3, 4))]
    folder.review(name, 0, "open", theirs, datetime.now(timezone.utc))
    press(page, "a")
    page.wait("document.getElementById('problem').innerText.includes('another reviewer')")
    page.wait("document.getElementById('boxes').innerText.includes('car')")
    assert folder.read(name).state == "open" and folder.read(name).boxes == tuple(theirs)
    press(page, "a")
    shown(page, folder.names()[1])
    assert folder.read(name).state == "accepted"
    page.errors[:] = [one for one in page.errors if "409" not in one]


def test_a_box_is_drawn_with_the_pointer(page: Chromium, folder: DatasetFolder) -> None:
    frame = page.evaluate(f"(({{x, y, width}}) => [x, y, width])({STAGE}.getBoundingClientRect())")
    scale = frame[2] / 96
    for kind, x, y in (("mousePressed", 60, 10), ("mouseMoved", 70, 30), ("mouseReleased", 80, 50)):
        at = {"x": frame[0] + x * scale, "y": frame[1] + y * scale}
        page.call("Input.dispatchMouseEvent", type=kind, button="left", buttons=1, clickCount=1, **at)
        if kind == "mouseMoved":
            page.call(
                "Input.dispatchMouseEvent",
                type=kind,
                button="left",
                buttons=1,
                x=frame[0] + 80 * scale,
                y=frame[1] + 50 * scale,
            )
    saved(page)
    boxes = folder.read(folder.names()[0]).boxes or ()
    assert len(boxes) == 2 and boxes[1].label in LABELS
    assert boxes[1].bbox == pytest.approx((60, 10, 20, 40), abs=2)
