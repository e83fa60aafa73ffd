"""A whole experiment over HTTP: from the upload to the probe's result, on a daemon of its own."""
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request

from tools import fail

direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy


class Daemon:
    """ovrd on a free port with an empty data directory."""

    def __init__(self, path, directory):
        data = os.path.join(directory, "data")
        os.makedirs(data)
        self.log = os.path.join(directory, "log")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([path, "--data-dir", data, "--listen", "127.0.0.1:0"],
                                            stdout=subprocess.PIPE, stderr=log, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            fail(f"the daemon did not start:\n{self.last_words()}")
        self.url = line.split()[-1]

    def last_words(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()[-2000:]

    def call(self, method, path, body=None, kind="application/json", length=None):
        request = urllib.request.Request(self.url + path, data=body, method=method)
        if body is not None:
            request.add_header("Content-Type", kind)
        if length is not None:
            request.add_header("Content-Length", str(length))
        try:
            with direct.open(request) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return fail(f"{method} {path}: {error.read().decode()}")
        except OSError as error:
            return fail(f"{method} {path}: {error}\n{self.last_words()}")

    def upload(self, split, path):
        with open(path, "rb") as file:
            self.call("PUT", f"/v1/datasets/cifar10/{split}?format=cifar10", file, "application/octet-stream",
                      os.path.getsize(path))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        self.process.stdout.close()


def watch(daemon, identifier):
    """Polls until the experiment is over. Returns it, and when each phase was first seen."""
    seen = {}
    while True:
        experiment = daemon.call("GET", f"/v1/experiments/{identifier}")
        if experiment["progress"]:
            seen.setdefault(experiment["progress"]["phase"], time.monotonic())
        if experiment["state"] == "succeeded":
            return experiment, seen
        if experiment["state"] not in ("queued", "running"):
            fail(f"the experiment {experiment['state']}: {experiment['error']}")
        time.sleep(0.1)


def run(path, directory, spec, train, test):
    """Seconds from the first byte of the upload to the result, and of each phase."""
    daemon = Daemon(path, directory)
    try:
        started = time.monotonic()
        daemon.upload("train", train)
        daemon.upload("test", test)
        uploaded = time.monotonic()
        posted = daemon.call("POST", "/v1/experiments", json.dumps(spec).encode())
        experiment, seen = watch(daemon, posted["id"])
        ended = time.monotonic()
        metrics = daemon.call("GET", f"/v1/experiments/{posted['id']}/metrics")
    finally:
        daemon.stop()
    training = seen.get("training", ended)
    probing = seen.get("probing", ended)
    return {"seconds": ended - started, "uploading": uploaded - started, "preparing": training - uploaded,
            "training": probing - training, "probing": ended - probing, "result": experiment["result"],
            "metrics": metrics}
