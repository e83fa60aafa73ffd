"""A daemon of the test's own, and what it is asked over HTTP."""
import http.client
import io
import json
import os
import re
import signal
import subprocess
import tempfile
import time

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RECORD = 3073  # bytes: a label and 32×32 pixels in three planes


class Daemon:
    """A context manager: starts ovrd on a free port with an empty directory, and ends it."""

    def __enter__(self):
        self.directory = tempfile.TemporaryDirectory(prefix="ovrd-science-")
        self.log = open(os.path.join(self.directory.name, "log"), "w+b")
        self.token = None
        self.start(0)
        return self

    def add_admin(self, name):
        """Stops the daemon meanwhile. From then on it asks for tokens, and call() sends the admin's."""
        self.stop()
        command = [self.program(), "user", "add", name, "--role", "admin", "--data-dir", self.data()]
        self.token = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        self.start(self.port)

    def program(self):
        return os.path.join(ROOT, os.environ.get("OVRD_TEST_BUILD", "build"), "ovrd")

    def data(self):
        return os.path.join(self.directory.name, "data")

    def start(self, port):
        self.process = subprocess.Popen(
            [self.program(), "--data-dir", self.data(), "--listen", f"127.0.0.1:{port}"],
            stdout=subprocess.PIPE, stderr=self.log, text=True)
        found = re.match(r"listening on http://(.+):(\d+)", self.process.stdout.readline())
        assert found, "the daemon did not start: " + self.last_words()
        self.port = int(found[2])
        self.client = http.client.HTTPConnection(found[1], self.port, timeout=120)
        self.answered_at = time.monotonic()

    def stop(self, signal=signal.SIGTERM):
        self.client.close()
        self.process.send_signal(signal)
        self.process.wait()
        self.process.stdout.close()

    def __exit__(self, *_):
        self.stop()
        self.log.close()
        self.directory.cleanup()

    def last_words(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")[-2000:]

    def call(self, method, path, body=None):
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        if body is not None:
            headers["Content-Type"] = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        if time.monotonic() - self.answered_at > 10:  # the daemon closes connections without traffic
            self.client.close()
        self.client.request(method, path, data, headers)
        answer = self.client.getresponse()
        content = answer.read()
        self.answered_at = time.monotonic()
        assert answer.status < 300, f"{method} {path}: {answer.status} {content[:1000].decode(errors='replace')}"
        return content

    def get(self, path):
        return json.loads(self.call("GET", path))

    def upload(self, name, split, pixels, labels):
        """pixels: n×3072 bytes."""
        records = np.concatenate([labels[:, None].astype(np.uint8), pixels], axis=1)
        assert records.shape[1] == RECORD
        self.call("PUT", f"/v1/datasets/{name}/{split}?format=cifar10", records.tobytes())

    def run(self, spec):
        """Posts a spec and waits for the experiment's end."""
        experiment = json.loads(self.call("POST", "/v1/experiments", spec))
        deadline = time.time() + 200
        while experiment["state"] in ("queued", "running"):
            assert time.time() < deadline, "still " + experiment["state"]
            time.sleep(0.02)
            experiment = self.get(f"/v1/experiments/{experiment['id']}")
        assert experiment["state"] == "succeeded", json.dumps(experiment["error"])
        return experiment

    def series(self, experiment):
        return self.get(f"/v1/experiments/{experiment['id']}/metrics")["series"]

    def tensor(self, experiment, name, epoch="best"):
        path = f"/v1/experiments/{experiment['id']}/weights/{name}?format=npy&epoch={epoch}"
        return np.load(io.BytesIO(self.call("GET", path))).astype(np.float64)
