"""The recorder: messages go into the ring at once; a thread of low priority encodes images and writes files.

Nothing that a pipeline calls here waits for an encoder or a disk. Of images, the newest wins: one waits to be
encoded, a later one supersedes it.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_vision.core.printable import printable_error
from edge_vision.record.folder import RecordingFolder, Retention
from edge_vision.record.mcap_writer import RecordedTopic
from edge_vision.record.recording_file import RecordingFile
from edge_vision.record.ring import Ring

NS_PER_S = 1_000_000_000
Message = tuple[str, bytes]
Encoder = Callable[[], Message | None]
MAX_WAITING = 1024
"""Messages that wait to be serialized; further ones are dropped."""
BATCH_BYTES = 1_000_000
FLUSH_S, TURN_S, IDLE_TURN_S = 1.0, 0.2, 1.0
CHECK_S, RETRY_S = 60.0, 5.0
"""Between two checks of the folder, and after a failed one."""
NICE = 10
JOIN_TIMEOUT_S = 1.2
COUNTED = (
    *(f"images.{name}" for name in ("received", "skipped", "superseded", "failed", "kept")),
    *(f"messages.{name}" for name in ("received", "dropped", "failed")),
    *(f"triggers.{name}" for name in ("accepted", "suppressed", "refused")),
    *(f"written.{name}" for name in ("files", "messages", "bytes", "missed")),
)
EARLY_SHARE = 0.25
"""An image that comes earlier than due by this share of the interval is kept: cameras jitter."""


@dataclass(frozen=True, slots=True)
class RecorderSettings:
    """image_hz: kept images, 0 = all. max_s: length of a recording after its start. quiet_s: after a
    recording, rules do not start another one for this long."""

    ring_bytes: int
    image_hz: float
    before_s: float
    after_s: float
    max_s: float
    quiet_s: float
    retention: Retention


class Recorder:
    """Any thread calls `add`, `offer` and `trigger`. counts: of what it received, kept, dropped and wrote.

    Of images: received = skipped + superseded + failed + kept, except for one that waits. Of all messages in
    the ring: added = held + removed.
    """

    def __init__(
        self,
        folder: RecordingFolder,
        topics: Mapping[str, RecordedTopic],
        settings: RecorderSettings,
        derive: Callable[[str, bytes], Message | None] = lambda topic, data: None,
        on_event: Callable[[str, str], None] = lambda severity, text: None,
        latched: frozenset[str] = frozenset(),
    ) -> None:
        """topics: by name. derive: a further message to write after one. on_event: receives a severity and
        text for the log. latched: topics whose last message is written at the beginning of each file."""
        self.folder, self.settings = folder, settings
        self._topics, self._derive, self._on_event, self._latched = topics, derive, on_event, latched
        self.ring = Ring(settings.ring_bytes)
        self.counts: Counter[str] = Counter()
        self.trouble, self.last_file = "", ""
        self._last: dict[str, tuple[int, bytes]] = {}
        self._condition = threading.Condition()
        self._image: tuple[int, Encoder] | None = None
        self._image_due_ns = 0
        self._waiting: deque[tuple[int, Encoder]] = deque()
        self._wanted: list[tuple[str, bool]] = []
        self._stopping = False
        self._file: RecordingFile | None = None
        self._cursor = self._end = self._last_ns = self._offset_ns = self._until_ns = self._limit_ns = (
            self._flush_ns
        ) = 0
        self._check_ns, self._quiet_ns, self._behind = 0, 0, False
        self._thread: threading.Thread | None = None

    # Input, from any thread.
    def add(self, topic: str, data: bytes) -> None:
        """Keep a serialized message."""
        with self._condition:
            self.counts["messages.received"] += 1
            number = self.ring.add(topic, time.monotonic_ns(), data)
            if topic in self._latched:
                self._last[topic] = number, data

    def offer(self, encode: Encoder) -> None:
        """Keep a message that the recorder's thread serializes."""
        with self._condition:
            self.counts["messages.received"] += 1
            if len(self._waiting) < MAX_WAITING:
                self._waiting.append((time.monotonic_ns(), encode))
            else:
                self.counts["messages.dropped"] += 1

    def offer_image(self, encode: Encoder) -> None:
        """As `offer`, at most image_hz times per second."""
        now_ns = time.monotonic_ns()
        with self._condition:
            self.counts["images.received"] += 1
            if not self._is_due(now_ns):
                self.counts["images.skipped"] += 1
                return
            self.counts["images.superseded"] += self._image is not None
            self._image = now_ns, encode
            self._condition.notify()

    def _is_due(self, now_ns: int) -> bool:
        """Whether an image of this time is to be kept; then the next one is due an interval later."""
        if not self.settings.image_hz:
            return True
        period_ns = int(NS_PER_S / self.settings.image_hz)
        if now_ns < self._image_due_ns - period_ns * EARLY_SHARE:
            return False
        on_time = self._image_due_ns > now_ns - period_ns
        self._image_due_ns = (self._image_due_ns if on_time else now_ns) + period_ns
        return True

    def trigger(self, reason: str, by_rule: bool = False) -> str:
        """Start a recording, or prolong the present one. reason: a part of its name. Returns why not, or
        an empty text."""
        with self._condition:
            if self.trouble:
                self.counts["triggers.refused"] += 1
                return self.trouble
            now_ns = time.monotonic_ns()
            if by_rule and (now_ns >= self._limit_ns if self._file else now_ns < self._quiet_ns):
                self.counts["triggers.suppressed"] += 1
                return f"a recording has just ended: rules are ignored for {self.settings.quiet_s:g} s"
            self.counts["triggers.accepted"] += 1
            if len(self._wanted) < MAX_WAITING:
                self._wanted.append((reason, by_rule))
            self._condition.notify()
        return ""

    # Life cycle.
    def configure(self, settings: RecorderSettings) -> None:
        """Use other settings from now on."""
        self.settings = settings
        self.ring.resize(settings.ring_bytes)

    def start(self) -> None:
        """Check the folder, complete what an earlier process left, and start the thread. Raises OSError."""
        self.folder.prepare()
        for path in self.folder.recover():
            self._on_event("warning", f"{path} was cut short and is complete up to its last flush")
        self._thread = threading.Thread(target=self._run, name="edge_vision recorder", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Complete the present recording, and end the thread."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        if self._thread:
            self._thread.join(JOIN_TIMEOUT_S)

    @property
    def recording(self) -> bool:
        """Whether a file is being written."""
        return self._file is not None or bool(self._wanted)

    def status(self) -> dict[str, Any]:
        """What was received, kept, dropped and written."""
        ring = self.ring
        return {
            "recording": self.recording,
            "last_file": self.last_file,
            **{name: self.counts[name] for name in COUNTED},
            "ring.mb": ring.bytes / 1e6,
            "ring.max_mb": ring.max_bytes / 1e6,
            "ring.messages": len(ring),
            "ring.added": ring.added,
            "ring.removed": ring.removed,
            "ring.refused": ring.refused,
            "recovered": self.folder.recovered,
            "deleted": self.folder.deleted,
        }

    def reset_stats(self) -> None:
        """Count from 0 again."""
        with self._condition:
            self.counts.clear()

    # The thread.
    def _run(self) -> None:
        with suppress(OSError, AttributeError):  # On Linux, each thread has its own priority.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while True:
            with self._condition:
                if not (self._image or self._wanted or self._stopping or self._behind):
                    self._condition.wait(TURN_S if self._file else IDLE_TURN_S)
                image, self._image = self._image, None
                wanted, self._wanted = self._wanted, []
                stopping = self._stopping
            self._encode(image)
            try:
                self._turn(wanted, stopping)
            except Exception as error:  # Its thread goes on in any case.
                self._fail(error)
            if stopping and self._file is None:
                return

    def _encode(self, image: tuple[int, Encoder] | None) -> None:
        if image:
            self.counts["images.kept" if self._put(*image) else "images.failed"] += 1
        while self._waiting:
            if not self._put(*self._waiting.popleft()):
                self.counts["messages.failed"] += 1

    def _put(self, time_ns: int, encode: Encoder) -> bool:
        try:
            message = encode()
        except Exception as error:  # Of a decoder, about one image.
            self._on_event("warning", f"not recorded: {printable_error(str(error))}")
            return False
        return message is not None and bool(self.ring.add(message[0], time_ns, message[1]))

    def _turn(self, wanted: list[tuple[str, bool]], stopping: bool) -> None:
        now_ns = time.monotonic_ns()
        if wanted:
            self._begin_or_prolong(wanted, now_ns)
        if self._file:
            self._write(self._file, now_ns, stopping)
        else:
            self.ring.forget(now_ns - int(self.settings.before_s * NS_PER_S))
        if now_ns >= self._check_ns and not self._file:
            self._check_ns = now_ns + int(CHECK_S * NS_PER_S)
            self.folder.prepare()
            self.trouble = ""
            self._retain()

    def _begin_or_prolong(self, wanted: list[tuple[str, bool]], now_ns: int) -> None:
        settings = self.settings
        if self._file and now_ns >= self._limit_ns:  # It ends: a request is for the next one.
            with self._condition:
                self._wanted[:0] = [one for one in wanted if not one[1]]
            return
        self._until_ns = now_ns + int(settings.after_s * NS_PER_S)
        if self._file:
            return
        self.folder.prepare()
        now_s = time.time()
        reason = wanted[0][0]
        path = self.folder.new_path(reason, now_s)
        self._file = RecordingFile(path, self._topics, {"trigger": reason})
        # A recording has times of its own that never go back, whatever clocks do.
        since_ns = now_ns - int(settings.before_s * NS_PER_S)
        # Without a battery, clocks begin at 1970, before which there is no time in a file.
        self._offset_ns = max(int(now_s * NS_PER_S) - now_ns, -since_ns)
        self._limit_ns = now_ns + int(settings.max_s * NS_PER_S)
        self._cursor, self._end, self._flush_ns = self.ring.first_since(since_ns), 0, now_ns
        self._last_ns = since_ns
        for topic, (number, data) in list(self._last.items()):
            if number < self._cursor:
                self._file.write(topic, since_ns + self._offset_ns, data)
        self._on_event("info", f"recording to {path}: {reason}")

    def _write(self, file: RecordingFile, now_ns: int, stopping: bool) -> None:
        """Write a batch of what the file lacks, so that images are encoded in between; complete it if due."""
        if not stopping and now_ns < min(self._until_ns, self._limit_ns):
            self._end = 0
        elif not self._end:
            self._end = self.ring.added
        last = self._end or self.ring.added
        batch = [one for one in self.ring.take(self._cursor, BATCH_BYTES) if one.number <= last]
        if batch:
            self.counts["written.missed"] += batch[0].number - self._cursor
            self._cursor = batch[-1].number + 1
        # What was encoded late goes where it belongs, or as early as possible: readers expect files without
        # an index in the order of time.
        for one in sorted(batch, key=lambda one: one.time_ns):
            self._last_ns = max(self._last_ns, one.time_ns)
            file.write(one.topic, self._last_ns + self._offset_ns, one.data)
            if derived := self._derived(one.topic, one.data):
                file.write(derived[0], self._last_ns + self._offset_ns, derived[1])
        full = file.size_bytes > self.settings.retention.max_total_bytes
        self._behind = bool(batch) and self._cursor <= last and not full
        if self._behind:
            return
        if self._end or full:
            self._complete(file)
        elif now_ns >= self._flush_ns:
            self._flush_ns = now_ns + int(FLUSH_S * NS_PER_S)
            file.flush()
            self.folder.check_space()

    def _derived(self, topic: str, data: bytes) -> Message | None:
        try:
            return self._derive(topic, data)
        except Exception as error:  # Of one message, which any program may have published.
            self.counts["messages.failed"] += 1
            self._on_event("warning", f"nothing derived of {topic}: {printable_error(str(error))}")
            return None

    def _complete(self, file: RecordingFile) -> None:
        path = file.close()
        self._finished(file, path)
        self._retain()

    def _finished(self, file: RecordingFile, path: Path) -> None:
        self._file = None
        self._quiet_ns = time.monotonic_ns() + int(self.settings.quiet_s * NS_PER_S)
        self.last_file = str(path)
        self.counts.update(
            {"written.files": 1, "written.messages": file.messages, "written.bytes": file.size_bytes}
        )
        self._on_event("info", f"recorded {path}: {file.messages} messages, {file.size_bytes / 1e6:.1f} MB")

    def _retain(self) -> None:
        last = Path(self.last_file) if self.last_file else None
        for path in self.folder.retain(self.settings.retention, time.time(), last):
            self._on_event("info", f"deleted {path}: max_total_mb or max_age_days")

    def _fail(self, error: Exception) -> None:
        """Keep what had been written, and try again later."""
        file, self._file, self._behind = self._file, None, False
        kept = file.cut() if file else None
        if file and kept:
            self._finished(file, kept)
        self._check_ns = time.monotonic_ns() + int(RETRY_S * NS_PER_S)
        where = f"{self.folder.path}: expected space and the right to write there"
        reason = error.strerror or error if isinstance(error, OSError) else repr(error)
        self.trouble = f"not recording, {where}, got: {reason}"
        self._on_event("error", self.trouble)
