"""How fast the API answers: one experiment, lists, and posts that are on disk before they are answered; with ten
thousand experiments stored, of which three thousand wait."""
import json
import os
import re
import shutil
import sqlite3
import subprocess
import tempfile
import time

from daemon import Daemon
from tools import HERE, say, table

STORED, QUEUED = 10000, 3000
SPEC = {"name": "small", "tags": ["bench"], "dataset": {"generator": "sphere", "samples": 500},
        "model": {"kind": "mlp", "hidden": [20]}, "training": {"epochs": 3}}
LISTS = ["", "?sort=created", "?sort=finished", "?sort=-finished", "?sort=result.accuracy", "?sort=-result.accuracy",
         *(f"?state={state}" for state in ("queued", "running", "paused", "succeeded", "failed", "cancelled")),
         "?tag=bench", "?tag=rare", "?name=small-9", "?name=nobody", "?created_after=2026-01-01T00:00:00Z",
         "?state=queued&sort=created", "?state=succeeded&sort=-result.accuracy&tag=bench", "?sort=-result.accuracy&tag=rare"]


# --- a full database -------------------------------------------------------------------------------

def wait_for(daemon, client, experiment):
    while daemon.call(client, "GET", f"/v1/experiments/{experiment}")["state"] in ("queued", "running"):
        time.sleep(0.05)


def copy_rows(database, table_name, column, new, old, changes=()):
    """Rows of `table_name` where `column` is `old`, once more for each in the table `copy`."""
    names = [row[1] for row in database.execute(f"PRAGMA table_info({table_name})")]
    values = [dict(changes).get(name, new if name == column else name) for name in names]
    database.execute(f"INSERT INTO {table_name} ({', '.join(names)}) SELECT {', '.join(values)} FROM {table_name}, copy "
                     f"WHERE {column} = {old} AND (copy.state NOT IN ('queued', 'paused') OR {table_name != 'figure'})")


def fill(path):
    """Copies the one experiment that is there, whose daemon has ended, until there are STORED: states and figures
    differ. Those that wait need more memory than any machine has, so that they stay where they are."""
    database = sqlite3.connect(path)
    database.execute("CREATE TEMP TABLE copy AS WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < "
                     f"{STORED - 1}) SELECT i, CASE WHEN i >= {STORED - QUEUED} THEN 'queued' WHEN i % 20 = 0 THEN 'failed' "
                     "WHEN i % 20 = 1 THEN 'cancelled' WHEN i % 20 = 2 THEN 'paused' ELSE 'succeeded' END AS state FROM n")
    waits = "copy.state IN ('queued', 'paused')"
    first, = database.execute("SELECT seq FROM experiment").fetchone()
    copy_rows(database, "experiment", "seq", f"{first} + copy.i", first, {
        "id": "printf('%012d', copy.i)", "name": "printf('small-%d', copy.i)", "state": "copy.state",
        "tags": "CASE WHEN copy.i % 1000 THEN tags ELSE char(10) || 'rare' || char(10) END",
        "created_at": "created_at + copy.i", "started_at": f"CASE WHEN {waits} THEN NULL ELSE started_at + copy.i END",
        "finished_at": f"CASE WHEN {waits} THEN NULL ELSE finished_at + copy.i END",
        "priority": "copy.i % 5", "memory_bytes": f"CASE WHEN {waits} THEN {1 << 60} ELSE memory_bytes END"})
    copy_rows(database, "figure", "experiment", f"{first} + copy.i", first, {
        "value": "CASE name WHEN 'accuracy' THEN (copy.i * 7919 % 10007) / 10007.0 ELSE value END"})
    copy_rows(database, "event", "experiment", f"{first} + copy.i", first)
    copy_rows(database, "experiment_tag", "experiment", f"{first} + copy.i", first, {
        "tag": "CASE WHEN copy.i % 1000 THEN tag ELSE 'rare' END"})
    database.commit()
    ids = [row[0] for row in database.execute("SELECT id FROM experiment")]
    database.close()
    return ids


def prepare(program, where):
    """A data directory with STORED experiments, and their ids."""
    data = os.path.join(where, "filled")
    with Daemon(program, where, data=data) as daemon:
        client = daemon.client()
        wait_for(daemon, client, daemon.call(client, "POST", "/v1/experiments", json.dumps(SPEC).encode())["id"])
        client.close()
    return data, fill(os.path.join(data, "ovrd.sqlite3"))


# --- wrk -------------------------------------------------------------------------------------------

def wrk(daemon, script, connections, seconds, argument):
    """Requests as the Lua script makes them, by two threads that keep their connections."""
    url = f"http://{daemon.address[0]}:{daemon.address[1]}"
    said = subprocess.run(["wrk", "-t", str(min(2, connections)), f"-c{connections}", f"-d{seconds}", "--latency", "-s",
                           os.path.join(HERE, script), url, "--", argument], stdout=subprocess.PIPE, text=True, check=True).stdout
    units = {"us": 1e-3, "ms": 1, "s": 1e3}
    late = {f"p{name}": float(value) * units[unit] for name, value, unit in re.findall(r"(50|99)%\s+([0-9.]+)(us|ms|s)", said)}
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    return {"per_second": float(re.search(r"Requests/sec:\s+([0-9.]+)", said)[1]), "connections": connections,
            "refused": int(refused[1]) if refused else 0, "broken": "Socket errors" in said, **late}


# --- lists -----------------------------------------------------------------------------------------

def get(client, path):
    client.request("GET", path)
    answer = client.getresponse()
    body = answer.read()
    assert answer.status == 200, (path, answer.status, body[:300])
    following = re.match(r"<([^>]+)>; rel=\"next\"", answer.getheader("Link") or "")
    return json.loads(body), following and following[1]


def page_times(client, path, rounds):
    times = []
    for _ in range(rounds):
        before = time.perf_counter()
        client.request("GET", path)
        client.getresponse().read()
        times.append((time.perf_counter() - before) * 1e3)
    times.sort()
    return {"p50": times[len(times) // 2], "p99": times[len(times) * 99 // 100]}


def deep_page(client, path):
    """The last page that a link leads to, by pages of 500, then with the usual limit."""
    following = path + ("&" if "?" in path else "?") + "limit=500"
    last = None
    while following:
        last, (_, following) = following, get(client, following)
    return re.sub(r"([?&])limit=500", r"\1limit=50", last) if "cursor=" in last else None


def list_times(daemon, rounds):
    client, found = daemon.client(), {}
    for query in LISTS:
        path = "/v1/experiments" + query
        deep = deep_page(client, path)
        found[query or "(none)"] = {"rows": len(get(client, path)[0]["experiments"]), "first": page_times(client, path, rounds),
                                    "deep": page_times(client, deep, rounds) if deep else None}
    client.close()
    return found


# --- all of it -------------------------------------------------------------------------------------

def run(program, quick):
    seconds, figures = 5 if quick else 20, {"stored": STORED, "queued": QUEUED}
    with tempfile.TemporaryDirectory(prefix="ovrd-bench.") as where:
        data, ids = prepare(program, where)
        names = os.path.join(where, "ids")
        with open(names, "w", encoding="ascii") as file:
            file.write("\n".join(ids))
        if shutil.which("wrk"):
            with Daemon(program, where, data=data) as daemon:
                figures["show"] = {n: wrk(daemon, "show.lua", n, seconds, names) for n in (2, 32, 128)}
        with Daemon(program, where, data=data) as daemon:
            figures["lists"] = list_times(daemon, 100 if quick else 500)
        if shutil.which("wrk"):
            with Daemon(program, where, data=data) as daemon:
                figures["submit"] = {n: wrk(daemon, "submit.lua", n, seconds, json.dumps(SPEC)) for n in (1, 8, 64)}
    return figures


def show(figures):
    if "show" not in figures:
        say("  wrk is not here, so only lists are measured: apt-get install wrk")
    rows = [(f"GET /v1/experiments/{{id}}, {n} connections", f) for n, f in figures.get("show", {}).items()]
    rows += [(f"POST /v1/experiments, {n} clients", f) for n, f in figures.get("submit", {}).items()]
    table((f"{figures['stored']:,} experiments, {figures['queued']:,} of them queued", "per second", "p50 ms", "p99 ms", "refused"),
          [(name, f["per_second"], f.get("p50"), f.get("p99"), f["refused"]) for name, f in rows])
    say()
    table(("GET /v1/experiments, pages of 50, ms", "rows", "first p50", "p99", "last p50", "p99"),
          [(name, f["rows"], *(f[page] and f[page][p] for page in ("first", "deep") for p in ("p50", "p99")))
           for name, f in figures["lists"].items()])


def slowest_page(figures):
    return max(f[page]["p99"] for f in figures["lists"].values() for page in ("first", "deep") if f[page])
