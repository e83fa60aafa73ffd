"""Runs a file's test cases and prints one line a test, as the other tests do."""
import sys
import unittest


class Tap(unittest.TestResult):
    """One line a test, as the other tests print them."""

    def report(self, test, good, why=""):
        print("ok" if good else "not ok", f"{self.testsRun} - {test.id().rsplit('.', 1)[-1]}")
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


def run():
    """All test cases of the program that was started, or those whose name has its argument; ends it."""
    loader = unittest.TestLoader()
    loader.testNamePatterns = [f"*{part}*" for part in sys.argv[1:]] or None
    suite = loader.loadTestsFromModule(sys.modules["__main__"])
    print(f"1..{suite.countTestCases()}")
    sys.exit(not suite.run(Tap()).wasSuccessful())
