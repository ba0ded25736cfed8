"""No secret of an address is shown, whatever it looks like; all else stays readable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_vision.core.redaction import redact_error, redact_text, redact_url

UNCHANGED = [
    "rtsp://camera:554/live",
    "RTSP://[fe80::1%25eth0]:554/live",
    "http://camera/mjpeg",
    "/clips/a@b:c=d.mp4",
    "14:05:09.mp4",
    "/dev/video0",
    "0",
    "",
]
MASKED = [
    ("rtsp://user:pass@camera/1", "rtsp://***@camera/1"),
    ("RTSP://user:p@ss/w?o#rd@camera:554/1", "RTSP://***@camera:554/1"),
    ("rtsp://user:p%40ss@[::1]:554/1", "rtsp://***@[::1]:554/1"),
    ("rtsp://user:@camera/1", "rtsp://***@camera/1"),
    ("rtsp://token@camera/1", "rtsp://***@camera/1"),
    ("rtsp://user:pass", "rtsp://***"),
    ("user:pass@camera/1", "***@camera/1"),
    ("http://camera/1?token=abc/d=&key=&flag#x", "http://camera/1?token=***&key=***&***"),
    ("http://camera/1#token", "http://camera/1#***"),
    ("rtsp://camera/user=admin&password=abc&channel=1", "rtsp://camera/user=***&password=***&channel=***"),
    ("rtspsrc location=rtsp://user:pass@camera/1", "rtspsrc location=rtsp://***@camera/1"),
    (
        'rtspsrc user-id=me user-pw="a b" location=rtsp://camera/1',
        "rtspsrc user-id=*** user-pw=*** location=",
    ),
]


@pytest.mark.parametrize("uri", UNCHANGED)
def test_an_address_without_secrets_is_unchanged(uri: str) -> None:
    assert redact_url(uri) == uri and redact_text(f"source '{uri}' was lost.") == f"source '{uri}' was lost."


@pytest.mark.parametrize(("uri", "masked"), MASKED)
def test_secrets_are_masked(uri: str, masked: str) -> None:
    shown = redact_url(uri)
    assert shown.startswith(masked)
    assert redact_url(shown) == shown == redact_text(shown)


def test_the_sentence_around_an_address_stays() -> None:
    text = "source 'rtsp://u:p@camera/1?key=2', (http://v:q@[::1]:80) and me@example.org; tcp://h:9."
    masked = "source 'rtsp://***@camera/1?key=***', (http://***@[::1]:80) and me@example.org; tcp://h:9."
    assert redact_text(text) == masked


def test_an_error_of_a_library_that_quotes_the_address() -> None:
    uri = "rtsp://user:pass word@camera/1"
    assert redact_error(OSError(f"cannot open {uri} now"), uri) == "cannot open rtsp://***@camera/1 now"


# A secret that is a part of what is shown anyway, such as "c" of the host, proves nothing.
SECRETS = st.text(min_size=1, max_size=30).map(lambda text: f"s{text}t")


@given(SECRETS)
def test_no_password_occurs_in_a_masked_address(secret: str) -> None:
    for scheme in ("rtsp", "HTTP", "x+y"):
        assert (
            redact_url(f"{scheme}://user:{secret}@[::1]:554/live?a=b")
            == f"{scheme}://***@[::1]:554/live?a=***"
        )
    assert secret not in redact_url(f"http://camera/1?token={secret}&flag")
    assert secret not in redact_url(f"rtspsrc location=rtsp://u:{secret}@camera/1 ! appsink")


@given(SECRETS.filter(lambda secret: not any(char.isspace() for char in secret)))
def test_no_password_occurs_in_a_masked_sentence(secret: str) -> None:
    text = redact_text(f"source 'rtsp://user:{secret}@camera/1' was lost")
    assert text == "source 'rtsp://***@camera/1' was lost"
    assert secret not in redact_text(f"cannot open http://camera/1?token={secret} again")


LONG = 10**6


# In quadratic time, each would take longer than a test may.
@pytest.mark.parametrize(
    "text", ["x" * LONG, ":" * LONG, "a://" + "]" * LONG + "a", "a=" * LONG, "user-id" + " " * LONG]
)
def test_a_long_text_takes_linear_time(text: str) -> None:
    assert redact_text("rtsp://u:p@h=1 " + text).startswith("rtsp://***@h")
    assert redact_text(text) and redact_url(text)
