"""What can go wrong. All of it is an OvrdError."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional


class OvrdError(Exception):
    """Base of everything that this package raises by itself."""


class Unreachable(OvrdError):
    """No connection, or it broke and stayed broken."""


class TimedOut(OvrdError, TimeoutError):
    """It went on for longer than the caller wanted to wait; on the server it still goes on."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a request."""

    detail: str
    pointer: Optional[str] = None  #: RFC 6901, into the body; "" is the whole of it
    parameter: Optional[str] = None  #: or the name of a query argument

    def __str__(self) -> str:
        place = self.parameter if self.pointer is None else self.pointer or "(the whole)"
        return f"{place}: {self.detail}" if place else self.detail


class Refused(OvrdError):
    """The server said no, in the words of RFC 9457."""

    def __init__(self, status: int, problem: dict[str, Any], retry_after: Optional[float] = None):
        self.status = status
        self.problem = problem
        self.type = str(problem.get("type", "about:blank"))
        self.title = str(problem.get("title", f"HTTP {status}"))
        self.detail = str(problem.get("detail", ""))
        self.retry_after = retry_after  #: seconds
        self.faults = [
            Fault(str(fault.get("detail", "")), fault.get("pointer"), fault.get("parameter"))
            for fault in problem.get("errors", [])
            if isinstance(fault, dict)
        ]
        lines = [f"{self.title} (HTTP {status})" + (f": {self.detail}" if self.detail else "")]
        super().__init__("\n  ".join(lines + [str(fault) for fault in self.faults]))


class Invalid(Refused):
    """400, 413, 415, 422: the request has to change. `faults` says where."""


class Denied(Refused):
    """401, 403: no token, a bad one, or it is not yours."""


class NotFound(Refused):
    """404."""


class Conflict(Refused):
    """409, 412, 428: not in this state, or it was changed meanwhile."""


class Busy(Refused):
    """429, 502, 503, 504: later perhaps."""


_BY_STATUS: dict[int, type[Refused]] = {
    400: Invalid, 401: Denied, 403: Denied, 404: NotFound, 409: Conflict, 412: Conflict, 413: Invalid,
    415: Invalid, 422: Invalid, 428: Conflict, 429: Busy, 502: Busy, 503: Busy, 504: Busy,
}  # fmt: skip


def refusal(status: int, problem: dict[str, Any], retry_after: Optional[float]) -> Refused:
    return _BY_STATUS.get(status, Refused)(status, problem, retry_after)


class Failed(OvrdError):
    """An experiment or a sweep that was waited for ended otherwise than by success."""

    def __init__(self, what: str, document: dict[str, Any]):
        self.document = document
        self.state = str(document.get("state"))
        self.error: Optional[dict[str, Any]] = document.get("error")
        why = (self.error or {}).get("detail")
        super().__init__(f"{what} {self.state}" + (f": {why}" if why else ""))
