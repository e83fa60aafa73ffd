"""What run.py stands on: calling both sides, taking turns, tables, and finding CIFAR-10."""
import glob
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
PYTHON = "/usr/bin/python3"  # Debian's, which python3-torch belongs to


def say(text=""):
    print(text, flush=True)


def fail(text):
    sys.exit(f"bench: {text}")


# --- our side --------------------------------------------------------------------------------------

class Core:
    """Calls the program `bench`, once for each measurement."""

    def __init__(self, build):
        self.path = os.path.join(build, "tests", "bench", "bench")

    def __call__(self, measurement, blas_kernel=None, **options):
        environment = dict(os.environ)
        if blas_kernel:
            environment["OPENBLAS_CORETYPE"] = blas_kernel
        words = [self.path, measurement] + [f"{name}={value}" for name, value in options.items()]
        done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, check=False)
        if done.returncode:
            fail(f"{' '.join(words)} ended with status {done.returncode}")
        return json.loads(done.stdout)


# --- PyTorch ---------------------------------------------------------------------------------------

def has_torch():
    return subprocess.run([PYTHON, "-c", "import numpy, torch"], stderr=subprocess.DEVNULL, check=False).returncode == 0


class Torch:
    """A process of torch_bench.py. `settings` are environment variables; those that steer threads,
    kernels and memory and are not among them are taken out."""

    STEERING = ("OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "OMP_WAIT_POLICY",
                "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")

    def __init__(self, name, settings):
        self.name = name
        environment = {key: value for key, value in os.environ.items() if key not in self.STEERING}
        self.process = subprocess.Popen(
            [PYTHON, os.path.join(HERE, "torch_bench.py")], env={**environment, **settings}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __call__(self, what, **options):
        self.process.stdin.write(json.dumps({"do": what, **options}) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            fail(f"PyTorch ({self.name}) ended during {what} {options}")
        return json.loads(answer)

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class Way:
    """A process of PyTorch with options that go along with every command."""

    def __init__(self, process, **options):
        self.process, self.options = process, options

    def __call__(self, what, **options):
        return self.process(what, **{**self.options, **options})


# --- taking turns ----------------------------------------------------------------------------------

def median(values):
    values = sorted(values)
    middle = len(values) // 2
    return (values[middle] + values[~middle]) / 2


def take_turns(rounds, sides):
    """Calls each of `sides` (name → function without arguments) in turn, `rounds` times: A B A B.
    Returns name → list of results."""
    results = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            results[name].append(side())
    return results


def of(results, name, field):
    return [result[field] for result in results[name]]


def ratio(results, name, field, ours="ours", our_field=None):
    """Median over the rounds of theirs/ours."""
    pairs = zip(of(results, name, field), of(results, ours, our_field or field))
    return median(theirs / our for theirs, our in pairs)


def apart(a, b):
    """How far two figures that should be the same are apart, relative to the larger."""
    return abs(a - b) / max(abs(a), abs(b), 1e-300)


# --- tables ----------------------------------------------------------------------------------------

def number(value):
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return "" if value is None else str(value)


def heading(text):
    say(f"\n{text}")
    say("-" * len(text))


def table(columns, rows):
    """Rows of strings and numbers, the first column to the left."""
    cells = [list(columns)] + [[number(value) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        first, *rest = (cell.ljust(width) if i == 0 else cell.rjust(width)
                        for i, (cell, width) in enumerate(zip(row, widths)))
        say("  " + "  ".join([first, *rest]).rstrip())


# --- CIFAR-10 --------------------------------------------------------------------------------------

def whole_files(directory, scratch):
    """train.bin and test.bin of a directory; the archive's batches are put together in `scratch`."""
    train, test = os.path.join(directory, "train.bin"), os.path.join(directory, "test.bin")
    if os.path.exists(train) and os.path.exists(test):
        return train, test
    batches = sorted(glob.glob(os.path.join(directory, "data_batch_[1-5].bin")))
    test = os.path.join(directory, "test_batch.bin")
    if len(batches) < 5 or not os.path.exists(test):
        return None
    train = os.path.join(scratch, "train.bin")
    with open(train, "wb") as whole:
        for batch in batches:
            with open(batch, "rb") as part:
                whole.write(part.read())
    return train, test


def find_cifar10(scratch):
    """Where scripts/demo.sh looks: $OVRD_CIFAR10, then ../shared/data/cifar10. None without it."""
    shared = os.path.join(os.path.dirname(ROOT), "shared", "data", "cifar10")
    for directory in filter(None, (os.environ.get("OVRD_CIFAR10"), shared)):
        files = whole_files(directory, scratch)
        if files:
            return files
    unpack = os.path.join(shared, "unpack.py")
    if os.path.exists(unpack):
        directory = os.path.join(scratch, "cifar10")
        if subprocess.run([PYTHON, unpack, directory], capture_output=True, check=False).returncode == 0:
            return whole_files(directory, scratch)
    return None
