"""Server-Sent Events, as ovrd sends them, across lost connections."""
from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

from .errors import OvrdError, Unreachable
from .transport import Answer, Hurry, Transport, raise_refusal

_SILENCE_S = 45.0  # a comment comes every 15 s
_LONGEST_LINE = 1 << 20


@dataclass(frozen=True)
class Event:
    id: Optional[int]  #: grows; progress has none, so that a stream is not resumed behind it
    name: str  #: state, epoch, log or progress
    data: dict[str, Any]


def _parse(response: http.client.HTTPResponse) -> Iterator[Event]:
    number: Optional[int] = None
    name, data = "message", ""
    while True:
        line = response.readline(_LONGEST_LINE)
        if not line.endswith(b"\n"):
            return  # cut off; an event that is not whole is none
        field, _, value = line.decode("utf-8", "replace").rstrip("\r\n").partition(":")
        value = value[1:] if value.startswith(" ") else value
        if field == "id" and value.isdigit():
            number = int(value)
        elif field == "event":
            name = value
        elif field == "data":
            data += value
        elif not field and not value and data:
            try:
                yield Event(number, name, json.loads(data))
            except ValueError as error:
                raise OvrdError("the stream of events is not what an ovrd sends") from error
            number, name, data = None, "message", ""


def events(transport: Transport, target: str, after: int) -> Iterator[Event]:
    hurry = Hurry(transport.patience)
    while True:
        connection = transport.connection(_SILENCE_S)
        trouble: object = "the stream ended early"
        try:
            headers = {"Accept": "text/event-stream", **({"Last-Event-ID": str(after)} if after else {})}
            response = transport.send_on(connection, "GET", target, None, headers)
            if response.status == 204:
                return
            if response.status in (429, 502, 503, 504):
                trouble = f"HTTP {response.status}"
            elif response.status != 200:
                raise_refusal(Answer(response.status, response.headers, response.read()))
            for event in _parse(response) if response.status == 200 else ():
                after = event.id if event.id is not None else after
                hurry = Hurry(transport.patience)
                yield event
                if event.name == "state" and event.data.get("state") in ("succeeded", "failed", "cancelled"):
                    return
        except (OSError, http.client.HTTPException) as error:
            trouble = error or type(error).__name__
        finally:
            connection.close()
        if not hurry.wait():
            raise Unreachable(f"no answer from {transport.url}: {trouble}")
