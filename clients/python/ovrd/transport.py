"""HTTP: connections, tokens, TLS, and what is tried again.

A request is sent again after a lost connection only where doing it twice does no harm: GET, PUT and DELETE, and POST
with an Idempotency-Key. After 429 with Retry-After and 503 anything may be sent again, since nothing was done; 502 and
504 come from a proxy and are like a lost connection.
"""
from __future__ import annotations

import http.client
import io
import json
import random
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Optional, Union
from urllib.parse import quote, urlencode, urlsplit

from .config import Config
from .errors import OvrdError, Unreachable, refusal
from .version import VERSION

Query = Mapping[str, Union[str, int, float, bool, None]]
Body = Union[bytes, BinaryIO, None]

_REUSE_S = 10.0  # the daemon closes connections without traffic
_LOST = (ConnectionError, http.client.HTTPException, TimeoutError, ssl.SSLEOFError, ssl.SSLZeroReturnError)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    content: bytes

    def json(self) -> Any:
        try:
            return json.loads(self.content)
        except ValueError as error:
            raise OvrdError("the answer is not JSON; is this the address of an ovrd?") from error


def path(pattern: str, *segments: str, query: Optional[Query] = None) -> str:
    """Each {} stands for one segment, which is escaped; a query argument of None is left out."""
    for segment in segments:
        if not segment or segment in (".", ".."):
            raise OvrdError(f"{segment!r} is no id or name")
    arguments = {
        name: ("true" if value else "false") if isinstance(value, bool) else value
        for name, value in (query or {}).items()
        if value is not None
    }
    made = pattern.format(*(quote(segment, safe="") for segment in segments))
    return made + ("?" + urlencode(arguments) if arguments else "")


def _retry_after(headers: http.client.HTTPMessage) -> Optional[float]:
    text = headers.get("Retry-After", "")
    return float(text) if text.isdigit() else None


def raise_refusal(answer: Answer) -> None:
    try:
        problem = json.loads(answer.content)
    except ValueError:
        problem = {"detail": answer.content[:300].decode("utf-8", "replace")}
    raise refusal(answer.status, problem if isinstance(problem, dict) else {}, _retry_after(answer.headers))


class Transport:
    """One kept connection a thread. `patience` is how many seconds trouble that may pass is borne."""

    def __init__(self, config: Config, timeout: float, patience: float):
        parts = urlsplit(config.url if "://" in config.url else "http://" + config.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise OvrdError(f"{config.url!r} is not a URL like http://127.0.0.1:8080")
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._host, self._port, self._prefix = parts.hostname, parts.port, parts.path.rstrip("/")
        self._tls: Optional[ssl.SSLContext] = None
        if parts.scheme == "https":
            try:
                self._tls = ssl.create_default_context(cafile=config.ca_file)
            except OSError as error:
                raise OvrdError(f"cannot read certificates from {config.ca_file}: {error}") from error
        if config.token is not None and not (config.token.isascii() and config.token.isprintable()):
            raise OvrdError("the token has characters that no token has; is it the right file?")
        self._headers = {"User-Agent": "ovrd-python/" + VERSION,
                         **({"Authorization": f"Bearer {config.token}"} if config.token else {})}  # fmt: skip
        self.timeout, self.patience = timeout, patience
        self._kept = threading.local()

    def connection(self, timeout: Optional[float] = None) -> http.client.HTTPConnection:
        """A new one, for the caller to close."""
        seconds = timeout or self.timeout
        if self._tls:
            return http.client.HTTPSConnection(self._host, self._port, timeout=seconds, context=self._tls,
                                               blocksize=1 << 16)  # fmt: skip
        return http.client.HTTPConnection(self._host, self._port, timeout=seconds, blocksize=1 << 16)

    def close(self) -> None:
        """The calling thread's connection; the others go with their threads."""
        kept: Optional[http.client.HTTPConnection] = getattr(self._kept, "connection", None)
        if kept:
            kept.close()
        self._kept.connection = None

    def _reused(self, timeout: float) -> http.client.HTTPConnection:
        kept: Optional[http.client.HTTPConnection] = getattr(self._kept, "connection", None)
        if kept is None:
            kept = self._kept.connection = self.connection(timeout)
        elif time.monotonic() - self._kept.used_at > _REUSE_S:
            kept.close()  # it opens again by itself
        kept.timeout = timeout
        if kept.sock:
            kept.sock.settimeout(timeout)
        return kept

    def send_on(self, connection: http.client.HTTPConnection, method: str, target: str, body: Body,
                headers: Mapping[str, str]) -> http.client.HTTPResponse:
        if isinstance(body, io.IOBase):
            body.seek(0)
        try:
            connection.request(method, self._prefix + target, body, {**self._headers, **headers})
        except ssl.SSLCertVerificationError as error:
            raise Unreachable(f"{self.url}: its certificate is not trusted: {error.verify_message}") from error
        except (BrokenPipeError, ConnectionResetError):
            # A server that refuses a big body answers before it is whole.
            if body is None or connection.sock is None:
                raise
        return connection.getresponse()

    def _once(self, method: str, target: str, body: Body, headers: Mapping[str, str], timeout: float) -> Answer:
        connection = self._reused(timeout)
        try:
            response = self.send_on(connection, method, target, body, headers)
            answer = Answer(response.status, response.headers, response.read())
            bounded = "Content-Length" in answer.headers or "Transfer-Encoding" in answer.headers
            if not bounded and answer.status not in (204, 304):
                raise http.client.IncompleteRead(answer.content)  # http.client takes half a head for a whole one
        except BaseException:
            self.close()
            raise
        self._kept.used_at = time.monotonic()
        return answer

    def send(self, method: str, target: str, body: Body = None, headers: Optional[Mapping[str, str]] = None,
             repeatable: Optional[bool] = None, timeout: Optional[float] = None) -> Answer:
        """The answer, of status 2xx or 304; else raises Refused or Unreachable."""
        headers = dict(headers or {})
        if repeatable is None:
            repeatable = method in ("GET", "HEAD", "PUT", "DELETE") or "Idempotency-Key" in headers
        hurry, lost = Hurry(self.patience), False
        while True:
            try:
                answer = self._once(method, target, body, headers, timeout or self.timeout)
            except (OSError, http.client.HTTPException) as error:
                refused = isinstance(error, ConnectionRefusedError)  # then it was not sent
                if not (refused or (repeatable and isinstance(error, _LOST))) or not hurry.wait():
                    raise Unreachable(f"no answer from {self.url}: {error or type(error).__name__}") from error
                lost = lost or not refused
                continue
            again = _retry_after(answer.headers)
            passing = answer.status == 503 or (answer.status == 429 and again is not None)
            if (passing or (repeatable and answer.status in (502, 504))) and hurry.wait(again):
                continue
            if method == "DELETE" and lost and answer.status == 404:
                return answer  # it was heard the first time
            if not 200 <= answer.status < 300 and answer.status != 304:
                raise_refusal(answer)
            return answer


class Hurry:
    """Waits a little longer each time, until patience ends."""

    def __init__(self, patience: float):
        self._end = time.monotonic() + patience
        self._pause = 0.1

    def wait(self, at_least: Optional[float] = None) -> bool:
        """False, at once, where the pause would go beyond the end."""
        pause = max(self._pause * random.uniform(0.8, 1.2), at_least or 0)
        if time.monotonic() + pause > self._end:
            return False
        time.sleep(pause)
        self._pause = min(2 * self._pause, 5.0)
        return True
