"""The live page in a real Chromium: what it draws, says, and does with the keyboard, a phone and the dark."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chromium_cases import Chromium, chromium
from ros_cases import Robot, wait_until
from web_cases import FULL_DISK, FakePipeline, address_of, box_of, free_port, grey_of

pytestmark = pytest.mark.skipif(chromium() is None, reason="Chromium is not installed: apt install chromium")
FIGURE = "document.querySelector('figure[data-camera=\"/front\"]')"


@pytest.fixture
def browser(launch) -> Iterator[Chromium]:
    """Ends before the servers, whose end is an error to it."""
    with Chromium() as browser:
        yield browser
        assert browser.errors == []


@pytest.fixture
def page(browser: Chromium, launch, robot: Robot) -> Iterator[tuple[Chromium, FakePipeline]]:
    """The page of a camera of which one picture is shown."""
    browser.open(address_of(launch("web", "--port", free_port())))
    browser.wait("document.getElementById('connection').textContent.includes('No pipeline reports yet')")
    pipeline = FakePipeline(robot, "/front")
    show(browser, robot, pipeline, 0)
    yield browser, pipeline


def show(browser: Chromium, robot: Robot, pipeline: FakePipeline, number: int) -> str:
    """Publish frame `number` until the page shows one of its copies, and return that one's stamp."""
    stamps: list[str] = []

    def turn() -> None:
        pipeline.report()
        stamps.append(str(pipeline.frame(number, number % 3 == 0)))
        robot.turns(0.2)

    script = f"(() => {{ const s = {FIGURE}?.dataset.stamp; return s && {{stamp: s}}; }})()"
    turn()
    while browser.wait(script, f"picture {number}", turn)["stamp"] not in stamps:
        turn()
    return str(browser.evaluate(f"{FIGURE}.dataset.stamp"))


def pixels(browser: Chromium, points: list[tuple[float, float]]) -> list[list[int]]:
    script = f"""(() => {{
      const context = {FIGURE}.querySelector("canvas").getContext("2d");
      return {[[round(x), round(y)] for x, y in points]}.map(
        ([x, y]) => [...context.getImageData(x, y, 1, 1).data]);
    }})()"""
    return [pixel[:3] for pixel in browser.evaluate(script)]


def is_grey(pixel: list[int], grey: int) -> bool:
    return all(abs(value - grey) < 8 for value in pixel)


@pytest.mark.parametrize(("number", "kind"), [(3, "inferred"), (4, "predicted")])
def test_the_box_of_the_shown_stamp_is_drawn_solid_if_inferred_and_dashed_if_predicted(
    page: tuple[Chromium, FakePipeline], robot: Robot, number: int, kind: str
) -> None:
    browser, pipeline = page
    show(browser, robot, pipeline, number)
    data = browser.evaluate(f"({{...{FIGURE}.dataset}})")
    assert data["stamp"] == data["tracksStamp"] and pipeline.numbers[int(data["stamp"])] == number
    assert data["kind"] == kind and data["boxes"] == "1"
    left, top, right, bottom = box_of(number)
    outside = pixels(browser, [(20, 20), ((left + right) / 2, (top + bottom) / 2)])
    assert all(is_grey(pixel, grey_of(number)) for pixel in outside), outside
    side = pixels(browser, [(right, y) for y in range(round(top) + 20, round(bottom) - 20)])
    drawn = [not is_grey(pixel, grey_of(number)) for pixel in side]
    assert all(drawn) if kind == "inferred" else 0.3 < sum(drawn) / len(drawn) < 0.9
    # The zones' borders: include at half the height, exclude at nine tenths.
    for y, x in ((240, range(340, 560)), (432, range(100, 500))):
        border = pixels(browser, [(at, y) for at in x])
        assert sum(not is_grey(pixel, grey_of(number)) for pixel in border) > 0.2 * len(border)
    caption = browser.evaluate(f"{FIGURE}.querySelector('figcaption').textContent")
    why = "predicted" if number % 3 else "inferred (change)"
    assert caption.startswith(f"/front: {why}, 1 object, ")
    assert "640x480" in caption


def test_masks_and_key_points_of_the_shown_stamp_are_drawn_while_it_is_watched(
    page: tuple[Chromium, FakePipeline], robot: Robot
) -> None:
    browser, pipeline = page
    pipeline.report_shapes()
    publishers = pipeline.shapes.values()
    robot.wait(lambda: all(one.get_subscription_count() for one in publishers), "subscriptions to shapes")
    for number in (3, 4):
        (left, top, *_), inferred = box_of(number), number == 3
        # An outline, three joints, a bone; not those that arrive too late.
        lines = "5" if inferred else "0"
        wait_until(
            lambda number=number, lines=lines: (
                show(browser, robot, pipeline, number)
                and browser.evaluate(f"{FIGURE}.dataset.lines") == lines
            ),
            f"{lines} lines",
        )
        # The mask's upper side, the shoulders and a point between them, the nose.
        drawn = [
            (left + 100, top + 20),
            (left + 160, top + 80),
            (left + 100, top + 80),
            (left + 100, top + 60),
        ]
        # The wrist, whose score is low; inside of the mask.
        free = [(left + 60, top + 60), (left + 100, top + 140)]
        found = [not is_grey(one, grey_of(number)) for one in pixels(browser, [*drawn, *free])]
        assert found == [inferred] * 4 + [False] * 2, (number, found)
    browser.key("p")
    robot.wait(lambda: not any(one.get_subscription_count() for one in publishers), "a pause")


def test_the_page_says_what_the_pipeline_reports(page: tuple[Chromium, FakePipeline], robot: Robot) -> None:
    browser, pipeline = page
    pipeline.run(range(1, 12))
    text = browser.wait("document.body.innerText.includes('gated') && document.body.innerText")
    for expected in (
        "received 1,234 = inferred 411",
        "missed an object on 2.0 % of the skipped frames (95 %: 1.0 % to 6.0 %), 3 of 125 audited frames",
        "Age of detections, median",
        "CPU of the machine\t41.5\t%",
        "Power\t5.3\tW",
        # Text of the network is text.
        "nanodet 1.0.0 <b>bold</b>",
    ):
        assert expected in text, text
    outcomes = browser.evaluate("document.getElementById('outcomes').innerText")
    assert "inferred" in outcomes and "(change" in outcomes and "(predicted" in outcomes
    assert browser.evaluate("document.getElementById('cause').hidden") is True
    pipeline.report(cause=True)
    browser.wait(
        "!document.getElementById('cause').hidden",
        turn=lambda: (pipeline.report(cause=True), robot.turns(0.2)),
    )
    cause = browser.evaluate("document.getElementById('cause').innerText")
    assert "no_images" in cause and "start the camera driver" in cause and "for 7 s" in cause
    assert f"WARN recorder: {FULL_DISK}" in browser.evaluate("document.getElementById('panels').innerText")
    # A silent pipeline is no good news.
    browser.wait(
        "document.getElementById('cause').innerText.includes('has the pipeline ended?')",
        turn=lambda: robot.turns(0.5),
    )


def test_the_timeline_names_the_frame_that_the_keyboard_chooses(
    page: tuple[Chromium, FakePipeline], robot: Robot
) -> None:
    browser, pipeline = page
    pipeline.run(range(1, 12))
    browser.wait("document.querySelectorAll('#outcomes li').length >= 2")
    browser.evaluate("document.getElementById('strip').focus()")
    said = set()
    for _ in range(6):
        browser.key("ArrowLeft")
        said.add(
            browser.evaluate("document.getElementById('chosen').textContent")
            .partition(": ")[2]
            .partition(",")[0]
        )
    assert said == {"inferred", "gated"}
    used = browser.evaluate("""(() => {
      const strip = document.getElementById("strip");
      const data = strip.getContext("2d").getImageData(0, 0, strip.width, strip.height).data;
      return data.filter((value, at) => at % 4 === 3 && value).length; })()""")
    assert used > 100


def test_cameras_are_chosen_by_keyboard_and_pause_ends_the_subscription(
    page: tuple[Chromium, FakePipeline], robot: Robot
) -> None:
    browser, pipeline = page
    rear = FakePipeline(robot, "/rear")
    rear.report()
    browser.wait(
        "document.querySelectorAll('#cameras button').length === 3",
        turn=lambda: (rear.report(), robot.turns(0.2)),
    )
    chosen = "document.querySelector('#cameras [aria-pressed=true]').textContent"
    assert browser.evaluate(chosen) == "/front"
    browser.key("2")
    assert browser.evaluate(chosen) == "/rear"
    robot.wait(
        lambda: rear.images.get_subscription_count() and not pipeline.images.get_subscription_count(),
        "rear alone",
    )
    browser.key("0")
    assert (
        browser.evaluate(chosen) == "all"
        and browser.evaluate("document.querySelectorAll('figure').length") == 2
    )
    robot.wait(
        lambda: rear.images.get_subscription_count() and pipeline.images.get_subscription_count(),
        "both cameras",
    )
    browser.key("p")
    robot.wait(
        lambda: not rear.images.get_subscription_count() and not pipeline.images.get_subscription_count(),
        "a pause",
    )
    browser.key("p")
    browser.key("1")
    robot.wait(pipeline.images.get_subscription_count, "the camera again")


def test_it_is_readable_on_a_phone_and_in_the_dark(page: tuple[Chromium, FakePipeline], robot: Robot) -> None:
    browser, pipeline = page
    pipeline.run(range(1, 8))
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True
    )
    assert browser.evaluate("document.documentElement.scrollWidth") <= 360
    assert browser.evaluate(f"{FIGURE}.querySelector('canvas').clientWidth") > 300

    def contrast() -> float:
        """Of the text and its background, WCAG 2.1."""
        colours = browser.evaluate("""["color", "backgroundColor"].map((name) =>
          getComputedStyle(document.body)[name].match(/\\d+/g).slice(0, 3).map(Number))""")
        lights = []
        for colour in colours:
            parts = [
                c / 255 / 12.92 if c / 255 <= 0.03928 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour
            ]
            lights.append(0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2])
        return (max(lights) + 0.05) / (min(lights) + 0.05)

    backs = []
    for scheme in ("light", "dark"):
        browser.call(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
        )
        assert contrast() > 7
        backs.append(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert backs[0] != backs[1]


def test_the_page_connects_again_to_a_server_that_comes_back(browser: Chromium, launch, robot: Robot) -> None:
    port = free_port()
    web = launch("web", "--port", port)
    browser.open(address_of(web))
    browser.wait("document.getElementById('connection').textContent.startsWith('Connected')")
    assert web.end() == 0
    browser.wait("document.getElementById('connection').textContent.includes('trying again')")
    launch("web", "--port", port)
    browser.wait("document.getElementById('connection').textContent.startsWith('Connected')")
    # Chromium logs each refused connection.
    assert all("ERR_CONNECTION_REFUSED" in error for error in browser.errors)
    browser.errors.clear()


def test_without_websocket_and_without_scripts_the_page_says_what_it_needs(browser: Chromium, launch) -> None:
    url = address_of(launch("web", "--port", free_port()))
    browser.call("Page.addScriptToEvaluateOnNewDocument", source="delete window.WebSocket;")
    browser.open(url)
    browser.wait("document.getElementById('connection')?.textContent.includes('needs WebSocket and')")
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(f"{url}?again")
    wait_until(lambda: "needs JavaScript" in str(browser.call("DOM.getDocument", depth=-1)), "the text")


def test_a_wrong_token_is_asked_for_again_and_the_right_one_leaves_the_address(
    browser: Chromium, launch
) -> None:
    link = address_of(launch("web", "--port", free_port(), "--allow-control"))
    url = link.partition("?")[0]
    browser.open(f"{url}?token=0123456789abcdef")
    browser.wait("document.body?.innerText.includes('The token is wrong.')")
    browser.open(link)
    browser.wait("document.getElementById('connection')?.textContent.startsWith('Connected')")
    assert "token" not in browser.evaluate("location.href") and browser.evaluate("document.cookie") == ""
    # Chromium logs the status 401.
    browser.errors.clear()
