"""What stands in for the outside in a replay."""

from __future__ import annotations

import pytest

from guard.errors import UpstreamError
from guard.model.exchange import Reply
from guard.replay.stand_ins import RecordedModel


async def test_a_recorded_reply_can_be_read_as_a_stream() -> None:
    model = RecordedModel()
    model.said = (None, Reply(200, [(b"content-type", b"text/event-stream")], b"data: 1\n\n"))
    stream = await model.open(b"POST", b"/", [], b"", 1.0)
    assert (stream.status, stream.headers) == (200, [(b"content-type", b"text/event-stream")])
    assert [await stream.read(), await stream.read()] == [b"data: 1\n\n", b""]
    stream.close()


async def test_a_reply_that_was_not_recorded_cannot_be_opened() -> None:
    with pytest.raises(UpstreamError):
        await RecordedModel().open(b"POST", b"/", [], b"", 1.0)
