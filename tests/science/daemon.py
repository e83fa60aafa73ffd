"""A daemon of the test's own, and what it is asked over HTTP."""
import http.client
import io
import json
import os
import subprocess
import time

import numpy as np

from support import BUILD, Process

RECORD = 3073  # bytes: a label and 32×32 pixels in three planes


class Daemon(Process):
    token = None

    def add_admin(self, name):
        """Stops the daemon meanwhile. From then on it asks for tokens, and call() sends the admin's."""
        self.stop()
        command = [os.path.join(BUILD, "ovrd"), "user", "add", name, "--role", "admin",
                   "--data-dir", os.path.join(self.directory.name, "data")]
        self.token = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        self.start()

    def start(self):
        super().start()
        self.client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        self.answered_at = time.monotonic()

    def stop(self, *signal):
        self.client.close()
        super().stop(*signal)

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
