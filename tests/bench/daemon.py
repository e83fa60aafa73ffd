"""A daemon of the benchmarks' own: on a free port, with an empty data directory."""
import http.client
import json
import os
import re
import subprocess
import tempfile

from tools import fail


class Daemon:
    """ovrd with the options given, below the directory `where`; on a data directory of its own unless `data` is one. A
    context manager."""

    def __init__(self, path, where, *options, data=None):
        directory = tempfile.mkdtemp(dir=where)
        data = data or os.path.join(directory, "data")
        self.log = os.path.join(directory, "log")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [path, "--data-dir", data, "--listen", "127.0.0.1:0", *options],
                stdout=subprocess.PIPE, stderr=log, text=True)
        found = re.match(r"listening on http://(.+):(\d+)", self.process.stdout.readline())
        if not found:
            fail(f"the daemon did not start:\n{self.last_words()}")
        self.address = found[1], int(found[2])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()

    def last_words(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()[-2000:]

    def client(self):
        """A connection of its own for call(); the caller closes it."""
        return http.client.HTTPConnection(*self.address, timeout=120)

    def call(self, client, method, path, body=None, kind="application/json"):
        """`body`: bytes or an open file. Returns the JSON of the answer; any other status ends the benchmark."""
        headers = {"Content-Type": kind} if body is not None else {}
        if hasattr(body, "fileno"):
            headers["Content-Length"] = str(os.fstat(body.fileno()).st_size)
        try:
            client.request(method, path, body, headers)
            answer = client.getresponse()
            text = answer.read()
        except OSError as error:
            return fail(f"{method} {path}: {error}\n{self.last_words()}")
        if answer.status >= 300:
            return fail(f"{method} {path}: {answer.status} {text.decode(errors='replace')[:500]}")
        return json.loads(text)

    def seconds_used(self):
        """Processor time of all threads so far."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
