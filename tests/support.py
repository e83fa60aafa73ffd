"""What the tests in Python share: a daemon of the test's own, and results as the other tests print them."""
import os
import re
import signal
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(ROOT, os.environ.get("OVRD_TEST_BUILD", "build"))


class Process:
    """A context manager: ovrd on a free port with an empty directory, `url`, ended with the block."""

    def __init__(self, *options):
        self.options = options
        self.directory = tempfile.TemporaryDirectory(prefix="ovrd-test-")
        self.log = open(os.path.join(self.directory.name, "log"), "w+b")
        self.port = 0

    def __enter__(self):
        self.start()
        return self

    def start(self):
        """Also again, on the same port and directory."""
        self.process = subprocess.Popen(
            [os.path.join(BUILD, "ovrd"), "--data-dir", os.path.join(self.directory.name, "data"),
             "--listen", f"127.0.0.1:{self.port}", *self.options],
            stdout=subprocess.PIPE, stderr=self.log, text=True)
        found = re.match(r"listening on (https?://.+:(\d+))", self.process.stdout.readline())
        assert found, "the daemon did not start: " + self.last_words()
        self.url, self.port = found[1], int(found[2])

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait()
        self.process.stdout.close()

    def __exit__(self, *_):
        self.stop()
        self.log.close()
        self.directory.cleanup()

    def last_words(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")[-2000:]


class Tap(unittest.TestResult):
    """One line a test."""

    def report(self, test, good, why="", note=""):
        print("ok" if good else "not ok", f"{self.testsRun} {note or '- ' + test.id().rsplit('.', 1)[-1]}")
        for line in why.splitlines():
            print("#", line)

    def addSuccess(self, test):
        super().addSuccess(test)
        self.report(test, True)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.report(test, False, self.failures[-1][1])

    def addError(self, test, err):
        super().addError(test, err)
        self.report(test, False, self.errors[-1][1])

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.report(test, False, note="# SKIP " + reason)


def main():
    """All test cases of the program that was started, or those whose name has one of its arguments."""
    loader = unittest.TestLoader()
    loader.testNamePatterns = [f"*{part}*" for part in sys.argv[1:]] or None
    suite = loader.loadTestsFromModule(sys.modules["__main__"])
    print(f"1..{suite.countTestCases()}")
    sys.exit(not suite.run(Tap()).wasSuccessful())
