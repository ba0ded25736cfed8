"""The frame accounting is balanced, under any sequence of operations and under threads."""

from __future__ import annotations

import random
import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from edge_vision.core.ledger import FATES, MAX_REASONS, Ledger, LedgerError, LedgerSnapshot

STAGES = ("gate", "cascade", "detector")


def adds_up(counts: LedgerSnapshot) -> bool:
    """The sum of design.md, written out here once more."""
    flat = counts.flat()
    names = ("inferred", "gated", "rejected", "superseded", "failed", "in_flight")
    return flat["received"] == sum(flat[name] for name in names) + flat.get("handed_on", 0)


class Books(RuleBasedStateMachine):
    """Any sequence of openings, moves, settlements, wrong calls and resets, against a plain model."""

    accounts = Bundle("accounts")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.next = 0
        self.open: dict[int, str] = {}
        self.ended: list[tuple[str, str]] = []
        self.received = 0

    @rule(target=accounts, stage=st.sampled_from(STAGES))
    def receive(self, stage: str) -> int:
        self.next += 1
        self.ledger.receive(self.next, stage)
        self.open[self.next] = stage
        self.received += 1
        return self.next

    @rule(seq=accounts, stage=st.sampled_from(STAGES))
    def advance(self, seq: int, stage: str) -> None:
        self.ledger.advance(seq, stage)
        self.open[seq] = stage

    @rule(seq=consumes(accounts), fate=st.sampled_from(FATES), reason=st.sampled_from(["", "a", "b"]))
    def settle(self, seq: int, fate: str, reason: str) -> None:
        self.ledger.settle(seq, fate, reason)
        del self.open[seq]
        self.ended.append((fate, reason))
        with pytest.raises(LedgerError):
            self.ledger.settle(seq, fate, reason)
        with pytest.raises(LedgerError):
            self.ledger.advance(seq, "gate")

    @rule(seq=accounts)
    def receive_twice(self, seq: int) -> None:
        with pytest.raises(LedgerError):
            self.ledger.receive(seq, "gate")

    @rule(seq=accounts)
    def settle_as_nonsense(self, seq: int) -> None:
        with pytest.raises(LedgerError):
            self.ledger.settle(seq, "lost")

    @rule()
    def reset(self) -> None:
        self.ledger.reset()
        self.ended.clear()
        self.received = len(self.open)

    @invariant()
    def the_accounting_is_right(self) -> None:
        counts = self.ledger.snapshot()
        assert counts.balanced and adds_up(counts)
        assert counts.received == self.received
        assert counts.in_flight == len(self.open)
        for fate in FATES:
            assert counts.fates.get(fate, 0) == sum(ended == fate for ended, _ in self.ended)
            for reason in ("a", "b"):
                assert counts.reasons.get(fate, {}).get(reason, 0) == self.ended.count((fate, reason))
        for stage in STAGES:
            assert counts.stages.get(stage, 0) == list(self.open.values()).count(stage)
        assert self.ledger.wait_idle(0) == (not self.open)
        assert self.ledger.snapshot().in_flight == len(self.open)


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.timeout(60)
def test_the_law_holds_at_every_moment_under_threads():
    ledger, errors, seen, done = Ledger(), [], [], threading.Event()
    threads, per_thread = 3, 2000

    def work(me: int) -> None:
        chance = random.Random(me)
        for number in range(per_thread):
            seq = number * threads + me
            ledger.receive(seq, "gate")
            if chance.random() < 0.5:
                ledger.advance(seq, "detector")
            ledger.settle(seq, chance.choice(FATES), "why")

    def watch() -> None:
        while not done.is_set():
            counts = ledger.snapshot()
            seen.append(counts.received)
            if not (counts.balanced and adds_up(counts) and 0 <= counts.in_flight <= threads):
                errors.append(counts)

    workers = [threading.Thread(target=work, args=(me,)) for me in range(threads)]
    watcher = threading.Thread(target=watch)
    watcher.start()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(40)
    done.set()
    watcher.join(10)
    assert not errors
    assert seen == sorted(seen) and len(seen) > 10
    counts = ledger.snapshot()
    assert counts.received == threads * per_thread and counts.in_flight == 0 and adds_up(counts)
    assert sum(sum(reasons.values()) for reasons in counts.reasons.values()) == counts.received


def test_a_snapshot_does_not_change():
    ledger = Ledger()
    ledger.receive(1, "gate")
    before = ledger.snapshot()
    ledger.settle(1, "gated", "still")
    assert (before.in_flight, dict(before.fates), dict(before.reasons)) == (1, {}, {})


def test_flat_names_every_fate_and_reason():
    ledger = Ledger()
    assert set(ledger.snapshot().flat()) == {"received", "in_flight", *FATES} - {"handed_on"}
    ledger.receive(1, "gate")
    ledger.settle(1, "failed", "truncated")
    ledger.receive(2, "gate")
    ledger.settle(2, "handed_on", "motion")
    flat = ledger.snapshot().flat()
    assert flat["failed.truncated"] == 1 and flat["handed_on"] == 1 and flat["handed_on.motion"] == 1


def test_wait_idle_wakes_when_the_last_account_closes():
    ledger = Ledger()
    ledger.receive(1, "gate")
    ledger.receive(2, "gate")
    assert not ledger.wait_idle(0.001)
    idle = []
    waiter = threading.Thread(target=lambda: idle.append(ledger.wait_idle(30)))
    waiter.start()
    ledger.settle(1, "gated")
    ledger.settle(2, "inferred")
    waiter.join(30)
    assert idle == [True]


def test_reset_keeps_frames_in_flight():
    ledger = Ledger()
    for seq in range(3):
        ledger.receive(seq, "gate")
    ledger.settle(0, "gated", "still")
    ledger.reset()
    assert ledger.snapshot().flat() == {"received": 2, "in_flight": 2} | dict.fromkeys(FATES[:-1], 0)
    ledger.settle(1, "inferred")
    assert adds_up(ledger.snapshot())


def test_two_who_settle_one_frame_close_it_once():
    ledger = Ledger()
    ledger.receive(1, "detector")
    assert ledger.settle_if_open(1, "failed", "deactivated")
    assert not ledger.settle_if_open(1, "inferred")
    snapshot = ledger.snapshot()
    assert snapshot.balanced and dict(snapshot.fates) == {"failed": 1}


def test_reasons_beyond_the_limit_are_counted_as_other():
    ledger = Ledger()
    for seq in range(4000):
        ledger.receive(seq, "gate")
        ledger.settle(seq, "gated", f"reason {seq % 2000}")
    snapshot = ledger.snapshot()
    assert len(snapshot.reasons["gated"]) == MAX_REASONS + 1 and snapshot.reasons["gated"]["reason 0"] == 2
    assert sum(snapshot.reasons["gated"].values()) == snapshot.fates["gated"] == 4000 and adds_up(snapshot)
