"""Ticks and images that come together again: each account is settled exactly once, whatever is lost."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_vision.core.frame_event import MAX_WAITING, FrameEvent, FrameEventJoin, JoinedFrame


def tick(stamp_ns: int, frame_id: str = "camera") -> FrameEvent:
    return FrameEvent(stamp_ns, frame_id, "gate", "", "motion")


def test_tick_then_image():
    join = FrameEventJoin()
    first = tick(5)
    assert join.add_event(first, 1, 0)
    assert join.add_image(5, "camera") == JoinedFrame(1, first, ())
    assert join.close() == []


def test_image_then_tick():
    join = FrameEventJoin()
    assert join.add_image(5, "camera") == JoinedFrame(None, None, ())
    assert not join.add_event(tick(5), 1, 0)
    assert join.close() == []


def test_an_image_gives_up_on_those_before_it():
    join = FrameEventJoin()
    for seq in (1, 2, 3, 4):
        join.add_event(tick(seq * 10), seq, 0)
    assert join.add_image(30, "camera").lost == (1, 2)
    assert join.add_image(40, "camera").lost == ()
    assert join.add_image(10, "camera").seq is None


def test_the_frame_id_belongs_to_the_key():
    join = FrameEventJoin()
    join.add_event(tick(5, "left"), 1, 0)
    assert join.add_image(5, "right").seq is None
    assert join.add_image(5, "left").seq == 1


def test_an_event_or_image_without_the_other_expires():
    join = FrameEventJoin(timeout_ns=100)
    join.add_event(tick(1), 1, 0)
    join.add_event(tick(2), 2, 50)
    assert join.expire(99) == []
    assert join.expire(100) == [1]
    assert join.expire(149) == []
    assert join.expire(1000) == [2]
    assert join.add_image(1, "camera").seq is None


def test_a_tick_sent_twice_opens_no_second_account():
    join = FrameEventJoin()
    assert join.add_event(tick(1), 1, 0)
    assert not join.add_event(tick(1), 2, 0)
    assert join.close() == [1]


class Accounts:
    """A caller that keeps the frame accounting as StageNode does, and refuses to settle an account twice."""

    def __init__(self, timeout_ns: int = 1000) -> None:
        self.join = FrameEventJoin(timeout_ns)
        self.open: set[int] = set()
        self.ends: dict[int, str] = {}
        self.seq = 0

    def _next(self) -> int:
        self.seq += 1
        return self.seq

    def _settle(self, seq: int, how: str) -> None:
        self.open.remove(seq)
        self.ends[seq] = how

    def tick(self, key: tuple[int, str], now_ns: int) -> None:
        seq = self._next()
        if self.join.add_event(tick(*key), seq, now_ns):
            self.open.add(seq)

    def image(self, key: tuple[int, str]) -> None:
        joined = self.join.add_image(*key)
        for lost in joined.lost:
            self._settle(lost, "lost")
        if joined.seq is None:
            seq = self._next()
            self.open.add(seq)
            self._settle(seq, "image")
        else:
            self._settle(joined.seq, "image")

    def expire(self, now_ns: int) -> None:
        for lost in self.join.expire(now_ns):
            self._settle(lost, "lost")

    def close(self) -> None:
        for lost in self.join.close():
            self._settle(lost, "lost")


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["tick", "image", "expire", "close"]),
        st.integers(0, 6),
        st.sampled_from(["left", "right"]),
        st.integers(0, 400),
    ),
    max_size=60,
)


@given(EVENTS)
def test_each_frame_is_settled_exactly_once(events):
    """Any order, with doubles, strangers, time-outs and restarts: `_settle` fails on a second settlement."""
    accounts, now_ns = Accounts(), 0
    for kind, stamp, frame_id, wait_ns in events:
        now_ns += wait_ns
        if kind == "tick":
            accounts.tick((stamp, frame_id), now_ns)
        elif kind == "image":
            accounts.image((stamp, frame_id))
        elif kind == "expire":
            accounts.expire(now_ns)
        else:
            accounts.close()
    accounts.close()
    assert not accounts.open
    images = sum(kind == "image" for kind, *_ in events)
    assert Counter(accounts.ends.values())["image"] == images


@settings(max_examples=300)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=1, max_size=50))
def test_lost_images_are_counted_as_lost(sent):
    """Ticks arrive all and in order; images are lost or come, in order, up to 3 frames after their tick."""
    accounts = Accounts()
    arrivals = sorted((n, 0, n) for n in range(len(sent)))
    last = 0
    for n, (lost, delay) in enumerate(sent):
        if not lost:
            last = max(last, n + delay)
            arrivals.append((last, 1, n))
    for _, is_image, n in sorted(arrivals):
        if is_image:
            accounts.image((n, "camera"))
        else:
            accounts.tick((n, "camera"), 0)
    accounts.expire(10**9)
    ends = Counter(accounts.ends.values())
    assert ends["lost"] == sum(lost for lost, _ in sent)
    assert ends["image"] == len(sent) - ends["lost"]
    assert accounts.close() is None and not accounts.open


@pytest.mark.parametrize("many", [10, 1000])
def test_images_without_any_tick_do_not_fill_the_memory(many):
    join = FrameEventJoin(memory=64)
    for stamp in range(many):
        join.add_image(stamp, "camera")
    assert len(join._early_images) <= 64


def test_expected_images_are_limited():
    join = FrameEventJoin()
    assert sum(join.add_event(tick(seq), seq, 0) for seq in range(5000)) == MAX_WAITING
    assert join.add_image(4999, "camera") == JoinedFrame(None, None, ())
    assert len(join.close()) == MAX_WAITING
