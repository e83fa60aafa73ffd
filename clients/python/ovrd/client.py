"""The client: what is asked of a daemon, and handles of experiments and sweeps."""
from __future__ import annotations

import csv
import io
import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Optional, TypeVar, Union

from . import arrays
from .arrays import Array, Arrayish, Tensors
from .config import PathLike, load
from .errors import Failed, OvrdError, TimedOut, Unreachable
from .stream import Event, events
from .transport import Answer, Body, Query, Transport, path

Json = dict[str, Any]
Document = Union[Mapping[str, Any], str, "os.PathLike[str]"]
Source = Union[PathLike, bytes, BinaryIO]
Self = TypeVar("Self", bound="_Handle")

FINAL = ("succeeded", "failed", "cancelled")
_LONGEST_WAIT_S = 30  # of one request


def connect(url: Optional[str] = None, *, token: Optional[str] = None, token_file: Optional[PathLike] = None,
            ca_file: Optional[PathLike] = None, timeout: float = 60, patience: float = 30) -> Client:
    """A client of the daemon at `url`.

    What is not given comes from OVRD_URL, OVRD_TOKEN, OVRD_TOKEN_FILE and OVRD_CA_FILE, then from
    ~/.config/ovrd/config (host, token-file, ca-file) and ~/.config/ovrd/token. `timeout` is how many seconds of
    silence end a request, `patience` for how long lost connections and a busy server are tried again.
    Nothing is sent yet.
    """
    return Client(Transport(load(url, token, token_file, ca_file), timeout, patience))


def _document(document: Document) -> Json:
    """A spec, a sweep or a patch, as it is or from a file."""
    if isinstance(document, Mapping):
        return dict(document)
    try:
        text = Path(document).read_text(encoding="utf-8")
    except OSError as error:
        raise OvrdError(f"cannot read {document}: {error.strerror}") from error
    try:
        read = json.loads(text)
    except ValueError as error:
        raise OvrdError(f"{document} is not JSON: {error}") from error
    if not isinstance(read, dict):
        raise OvrdError(f"{document} must hold a JSON object")
    return read


class Client:
    """One daemon. May be used by several threads; each gets a connection of its own."""

    def __init__(self, transport: Transport):
        self.transport = transport

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.transport.close()

    def __repr__(self) -> str:
        return f"<ovrd client of {self.transport.url}>"

    def request(self, method: str, target: str, *, json_body: Any = None, body: Body = None,
                headers: Optional[Mapping[str, str]] = None, repeatable: Optional[bool] = None,
                timeout: Optional[float] = None) -> Answer:
        """Any route: GET /openapi.json lists them. Raises Refused where the status is not 2xx or 304."""
        sent = dict(headers or {})
        if json_body is not None:
            try:
                body = json.dumps(json_body, allow_nan=False).encode()
            except ValueError as error:
                raise OvrdError(f"JSON has no such number: {error}") from error
            sent["Content-Type"] = "application/json"
        return self.transport.send(method, target, body, sent, repeatable, timeout)

    def get(self, target: str) -> Any:
        return self.request("GET", target).json()

    # Experiments

    def _post_once(self, target: str, document: Optional[Json], key: Optional[str]) -> Json:
        """Whatever happens to the connection, this makes one experiment or sweep."""
        answer = self.request("POST", target, json_body=document,
                              headers={"Idempotency-Key": key or uuid.uuid4().hex})  # fmt: skip
        made: Json = answer.json()
        return made

    def submit(self, spec: Document, *, key: Optional[str] = None) -> Experiment:
        """Queues an experiment. The same `key` with the same spec gives the same experiment again."""
        return Experiment(self, self._post_once("/v1/experiments", _document(spec), key))

    def sweep(self, document: Document, *, key: Optional[str] = None) -> Sweep:
        """Queues a sweep: a document with a `base`."""
        return Sweep(self, self._post_once("/v1/sweeps", _document(document), key))

    def estimate(self, document: Document) -> Json:
        """Checks a spec or a sweep and says what it would cost; nothing is stored."""
        read = _document(document)
        target = "/v1/sweeps?dry_run=true" if "base" in read else "/v1/experiments?dry_run=true"
        answer: Json = self.request("POST", target, json_body=read, repeatable=True).json()
        return answer

    def experiment(self, id: str) -> Experiment:
        return Experiment(self, self.get(path("/v1/experiments/{}", id)))

    def experiments(self, limit: Optional[int] = None, **filters: Union[str, int]) -> Iterator[Experiment]:
        """Newest first unless `sort` says otherwise. Filters: state, owner, tag, name (its start), sweep,
        created_after. Pages are fetched as they are needed."""
        for found in self._pages("/v1/experiments", "experiments", limit, filters):
            yield Experiment(self, found)

    def get_sweep(self, id: str) -> Sweep:
        return Sweep(self, self.get(path("/v1/sweeps/{}", id)))

    def sweeps(self, limit: Optional[int] = None) -> Iterator[Sweep]:
        for found in self._pages("/v1/sweeps", "sweeps", limit, {}):
            yield Sweep(self, found)

    def _pages(self, target: str, member: str, limit: Optional[int], query: Query) -> Iterator[Json]:
        left = limit
        following: Optional[str] = path(target, query={**query, "limit": min(left or 500, 500)})
        while following and (left is None or left > 0):
            answer = self.request("GET", following)
            page = answer.json()[member]
            yield from page if left is None else page[:left]
            left = None if left is None else left - len(page)
            following = _next_page(answer.headers.get("Link", ""))

    def compare(self, a: str, b: str, *, layer: Optional[str] = None) -> Json:
        """How far two histograms are apart. ID:3 is after epoch 3, ID alone after the best one."""
        answer: Json = self.get(path("/v1/compare/histograms", query={"a": a, "b": b, "layer": layer}))
        return answer

    # Data sets

    def upload(self, name: str, split: str, source: Union[Source, Arrayish], labels: Union[Source, Arrayish, None] = None,
               *, format: Optional[str] = None, label: Union[str, int, None] = None,
               header: Optional[bool] = None) -> Json:  # fmt: skip
        """Sends a split, "train" or "test".

        `source` is a file (path, open or bytes), or an array, samples first; idx, npy and arrays have their labels
        apart. `format` is cifar10, csv, idx or npy and is known from a path's ending. For csv `label` is the column
        of the labels: a name, a number from 0, or "last".
        """
        if labels is None:
            made = format or _format_of(source)
            query: Query = {"format": made, "label": label, "header": header}
            return self._put(path("/v1/datasets/{}/{}", name, split, query=query), source)
        self._put(path("/v1/datasets/{}/{}/features", name, split, query={"format": format or _format_of(source)}), source)
        return self._put(path("/v1/datasets/{}/{}/labels", name, split, query={"format": format or _format_of(labels)}), labels)

    def _put(self, target: str, source: Union[Source, Arrayish]) -> Json:
        headers = {"Content-Type": "application/octet-stream"}
        if isinstance(source, (str, os.PathLike)):
            try:
                with open(source, "rb") as file:
                    headers["Content-Length"] = str(os.fstat(file.fileno()).st_size)
                    answer: Json = self.request("PUT", target, body=file, headers=headers).json()
            except FileNotFoundError as error:
                raise OvrdError(f"there is no file {source}") from error
            return answer
        body = source if isinstance(source, (bytes, io.IOBase)) else arrays.write_npy(source)
        answer = self.request("PUT", target, body=body, headers=headers).json()
        return answer

    def datasets(self) -> list[Json]:
        found: list[Json] = self.get("/v1/datasets")["datasets"]
        return found

    def dataset(self, name: str) -> Json:
        answer: Json = self.get(path("/v1/datasets/{}", name))
        return answer

    def delete_dataset(self, name: str) -> None:
        self.request("DELETE", path("/v1/datasets/{}", name))

    # The daemon

    def version(self) -> Json:
        answer: Json = self.get("/version")
        return answer

    def schema(self) -> Json:
        """JSON Schema of a spec."""
        answer: Json = self.get("/v1/schema")
        return answer

    def queue(self) -> Json:
        """What runs, what waits, in which order and why."""
        answer: Json = self.get("/v1/queue")
        return answer

    def me(self) -> Json:
        """Who the daemon thinks is asking."""
        answer: Json = self.get("/v1/me")
        return answer


def _next_page(link: str) -> Optional[str]:
    """The target of rel="next" in a Link header (RFC 8288), as ovrd writes it."""
    for part in link.split(","):
        target, _, parameters = part.partition(";")
        if 'rel="next"' in parameters:
            return target.strip().strip("<>")
    return None


def _format_of(source: object) -> str:
    if not isinstance(source, (str, os.PathLike)):
        if isinstance(source, (bytes, io.IOBase)):
            raise OvrdError("say format=, since bytes and open files have no name to know it by")
        return "npy"
    name = os.fspath(source)
    name = name[:-3] if name.endswith(".gz") else name
    for ending, format in ((".csv", "csv"), (".tsv", "csv"), (".npy", "npy"), (".idx", "idx"), ("ubyte", "idx")):
        if name.endswith(ending):
            return format
    return "cifar10"


class _Handle:
    """What experiments and sweeps have in common. `data` is the document as last seen; it ages."""

    _route = ""
    _word = ""

    def __init__(self, client: Client, data: Json):
        self.client = client
        self.data = data

    def __repr__(self) -> str:
        return f"<{self._word} {self.id} {self.name!r} {self.state}>"

    @property
    def id(self) -> str:
        return str(self.data["id"])

    @property
    def name(self) -> str:
        return str(self.data["name"])

    @property
    def state(self) -> str:
        return str(self.data["state"])

    @property
    def ended(self) -> bool:
        return self.state in FINAL

    def _path(self, rest: str = "", *segments: str, query: Optional[Query] = None) -> str:
        return path(self._route + rest, self.id, *segments, query=query)

    def refresh(self: Self) -> Self:
        self.data = self.client.get(self._path())
        return self

    def _watch(self, seconds: float) -> None:
        """Returns when it has changed, or after about so many seconds."""
        headers = {"Prefer": f"wait={max(int(seconds), 0)}", "If-None-Match": f'"{self.data["revision"]}"'}
        answer = self.client.request("GET", self._path(), headers=headers,
                                     timeout=seconds + self.client.transport.timeout)  # fmt: skip
        if answer.status != 304:
            self.data = answer.json()

    def wait(self: Self, timeout: Optional[float] = None, *, check: bool = True) -> Self:
        """Waits for the end. Raises TimedOut after `timeout` seconds, and, unless check=False, Failed where the end
        is not success. A restart of the daemon is waited for, up to the client's patience."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.ended:
            left = _LONGEST_WAIT_S if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimedOut(f"{self._word} {self.id} is still {self.state} after {timeout:g} s")
            started = time.monotonic()
            self._watch(min(left, _LONGEST_WAIT_S))
            if left < 1 or time.monotonic() - started < 0.02:
                time.sleep(min(max(left, 0), 0.05))  # it changes faster than anybody wants to know
        if check and self.state != "succeeded":
            raise Failed(f"{self._word} {self.id}", self.data)
        return self

    def cancel(self: Self) -> Self:
        self.data = self.client.request("POST", self._path("/cancel"), repeatable=True).json()
        return self


class Experiment(_Handle):
    _route = "/v1/experiments/{}"
    _word = "experiment"

    @property
    def result(self) -> Json:
        """Of one that has succeeded."""
        found = self.data.get("result")
        if not isinstance(found, dict):
            raise OvrdError(f"experiment {self.id} has no result: it is {self.state}; wait() for it")
        return found

    @property
    def spec(self) -> Json:
        """Complete: all defaults filled in."""
        if "spec" not in self.data:  # it came from a list
            self.refresh()
        spec: Json = self.data["spec"]
        return spec

    def stream(self, after: int = 0) -> Iterator[Event]:
        """Its events as they happen, to the end: state, epoch, log, progress. A lost connection is taken up again
        without a gap and without doubles; `after` is the id of the last event that is known already."""
        return events(self.client.transport, self._path("/events"), after)

    def metrics(self, from_epoch: Optional[int] = None, max_points: Optional[int] = None) -> list[Json]:
        """Figures of every epoch."""
        query: Query = {"from_epoch": from_epoch, "max_points": max_points}
        series: list[Json] = self.client.get(self._path("/metrics", query=query))["series"]
        return series

    def metrics_csv(self) -> str:
        return self.client.request("GET", self._path("/metrics?format=csv")).content.decode()

    def histogram(self, *, epoch: Optional[int] = None, split: Optional[str] = None, layer: Optional[str] = None,
                  bins: Optional[int] = None) -> Json:
        """Of the activations: edges, counts, and exact zeros apart in zero_count."""
        query: Query = {"epoch": epoch, "split": split, "layer": layer, "bins": bins}
        answer: Json = self.client.get(self._path("/histogram", query=query))
        return answer

    def histograms(self, *, from_epoch: Optional[int] = None, max_points: Optional[int] = None,
                   layer: Optional[str] = None) -> Json:
        query: Query = {"from_epoch": from_epoch, "max_points": max_points, "layer": layer}
        answer: Json = self.client.get(self._path("/histograms", query=query))
        return answer

    def units(self, *, sort: Optional[str] = None, dead: Optional[bool] = None, layer: Optional[str] = None,
              class_means: Optional[bool] = None, limit: Optional[int] = None) -> list[Json]:
        """What each unit does; all of them unless there is a limit."""
        query: Query = {"sort": sort, "dead": dead, "layer": layer, "class_means": class_means}
        return list(self.client._pages(self._path("/units"), "units", limit, query))

    def tiling(self, *, units: Optional[str] = None, layer: Optional[str] = None) -> Json:
        """On the sphere: which cells each unit answers to."""
        answer: Json = self.client.get(self._path("/tiling", query={"units": units, "layer": layer}))
        return answer

    def log(self) -> str:
        return self.client.request("GET", self._path("/log")).content.decode()

    # The model

    def tensors(self, *, epoch: str = "best") -> list[Json]:
        """Name, shape and type of each tensor."""
        found: list[Json] = self.client.get(self._path("/weights", query={"epoch": epoch}))["tensors"]
        return found

    def weights(self, tensor: str, *, epoch: str = "best", rows: Optional[tuple[int, int]] = None) -> Array:
        """One tensor, or its rows a to b − 1."""
        query: Query = {"format": "npy", "epoch": epoch, "rows": f"{rows[0]}:{rows[1]}" if rows else None}
        return arrays.read_npy(self.client.request("GET", self._path("/weights/{}", tensor, query=query)).content)

    def model_file(self) -> bytes:
        """Everything in one safetensors file."""
        return self.client.request("GET", self._path("/model?format=safetensors")).content

    def model(self) -> Tensors:
        """All tensors by name: weights, preprocessing and probe. `.metadata` has the spec."""
        return arrays.read_safetensors(self.model_file())

    def filters_png(self, units: Optional[tuple[int, int]] = None) -> bytes:
        """What units look for, where the data are images."""
        query: Query = {"units": f"{units[0]}:{units[1]}" if units else None}
        return self.client.request("GET", self._path("/filters.png", query=query)).content

    def _apply(self, what: str, samples: Union[Arrayish, str], dataset: Optional[str], format: str) -> Answer:
        target = self._path(what, query={"format": format})
        if isinstance(samples, str):
            document: Json = {"split": samples}
            if dataset:
                document["dataset"] = {"name": dataset}
            return self.client.request("POST", target, json_body=document, repeatable=True)
        if isinstance(samples, (list, tuple)) and not arrays.HAVE_NUMPY:
            return self.client.request("POST", target, json_body={"samples": samples}, repeatable=True)
        body = arrays.write_npy(samples)
        headers = {"Content-Type": "application/octet-stream"}
        return self.client.request("POST", target, body=body, headers=headers, repeatable=True)

    def encode(self, samples: Union[Arrayish, str], *, dataset: Optional[str] = None) -> Array:
        """Codes of samples with their raw values, samples × units; of a stored split where `samples` is "train" or
        "test": of `dataset`, else of the experiment's own data."""
        return arrays.read_npy(self._apply("/encode", samples, dataset, "npy").content)

    def predict(self, samples: Union[Arrayish, str], *, dataset: Optional[str] = None) -> Json:
        """Classes and probabilities of samples, and the accuracy where the labels are known."""
        answer: Json = self._apply("/predict", samples, dataset, "json").json()
        return answer

    def probabilities(self, samples: Union[Arrayish, str], *, dataset: Optional[str] = None) -> Array:
        """Of the classes alone, samples × classes: for many samples."""
        return arrays.read_npy(self._apply("/predict", samples, dataset, "npy").content)

    # What is done to it

    def pause(self) -> Experiment:
        self.data = self.client.request("POST", self._path("/pause")).json()
        return self

    def resume(self) -> Experiment:
        self.data = self.client.request("POST", self._path("/resume")).json()
        return self

    def rerun(self, patch: Optional[Document] = None, *, key: Optional[str] = None) -> Experiment:
        """A new experiment from the same spec, changed by a merge patch (RFC 7396)."""
        document = None if patch is None else _document(patch)
        return Experiment(self.client, self.client._post_once(self._path("/rerun"), document, key))

    def replay(self, *, key: Optional[str] = None) -> Experiment:
        """Runs it again; result["replay"] of the new one says whether the bits are the same."""
        return Experiment(self.client, self.client._post_once(self._path("/replay"), None, key))

    def edit(self, **changes: Any) -> Experiment:
        """name, tags, notes, priority. Raises Conflict where somebody changed it since this handle saw it."""
        headers = {"If-Match": f'"{self.data["revision"]}"'}
        self.data = self.client.request("PATCH", self._path(), json_body=changes, headers=headers).json()
        return self

    def delete(self) -> None:
        self.client.request("DELETE", self._path())


class Sweep(_Handle):
    _route = "/v1/sweeps/{}"
    _word = "sweep"

    def experiments(self, limit: Optional[int] = None) -> Iterator[Experiment]:
        return self.client.experiments(limit, sweep=self.id)

    def points(self) -> list[Json]:
        """A row for each point: its values by pointer, and every figure of the result: the mean over repeats under
        its name, the standard deviation under name + ".sd"."""
        if "points" not in self.data:  # it came from a list, or was just posted
            self.refresh()
        rows = []
        for point in self.data["points"]:
            row: Json = {"point": point["point"], **point["values"]}
            row.update(_flat(point["result"]))
            row.update({name + ".sd": value for name, value in _flat(point["sd"]).items()})
            rows.append(row)
        return rows

    def rows(self) -> list[Json]:
        """A row for each experiment: point, repeat, experiment, state, the axes by pointer, and every figure. What
        is not there is None."""
        text = self.client.request("GET", self._path("?format=csv")).content.decode()
        return [{name: _cell(name, cell) for name, cell in row.items()} for row in csv.DictReader(io.StringIO(text))]

    def frame(self) -> Any:
        """The same as a pandas DataFrame."""
        try:
            import pandas
        except ImportError as error:
            raise OvrdError("frame() needs pandas; rows() gives the same as a list") from error
        return pandas.DataFrame(self.rows())


def _flat(figures: Optional[Json], prefix: str = "") -> Json:
    flat: Json = {}
    for name, value in (figures or {}).items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def _cell(name: str, text: str) -> Any:
    if name in ("experiment", "state"):
        return text
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


__all__ = ["Client", "Event", "Experiment", "Sweep", "Unreachable", "connect"]
