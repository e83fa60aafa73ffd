"""tests/golden/kmeans.h: what scikit-learn makes of the data of tests/core/test_kmeans.c.

/usr/bin/python3 tests/golden/kmeans.py > tests/golden/kmeans.h    (Debian: python3-sklearn)
"""
import warnings

import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning

warnings.simplefilter("ignore", ConvergenceWarning)

N, D, K, BATCH = 60, 3, 5, 10
i, j = np.arange(N)[:, None], np.arange(D)[None, :]
x = ((i * 37 + j * 101 + i * i * (7 + j)) % 199) / 16 + 8 * (i % 4 == j)  # exact in float32
start = x[[3, 17, 22, 41, 58]]


def lloyd(first, iterations):
    return KMeans(K, init=first, n_init=1, max_iter=iterations, tol=0, algorithm="lloyd").fit(x)


def table(kind, name, shape, numbers):
    rows = np.asarray(numbers).reshape(-1, np.shape(numbers)[-1])
    lines = ",\n".join("    " + ", ".join("%.12g" % value for value in row) for row in rows)
    print(f"static const {kind} {name}[{shape}] = {{\n{lines},\n}};\n")


steps = [lloyd(start, n) for n in (1, 2, 3)]
far = start.copy()
far[2] = 100, 100, 100
online, after = MiniBatchKMeans(K, init=start, n_init=1, reassignment_ratio=0), []
for epoch in range(2):
    for first in range(0, N, BATCH):
        online.partial_fit(x[first : first + BATCH])
    after.append(online.cluster_centers_.copy())

print("/* Written by kmeans.py. */\n/* clang-format off */\n")
table("double", "golden_lloyd", "3 * 5 * 3", [step.cluster_centers_.ravel() for step in steps])
table("double", "golden_distortion", "3", [step.inertia_ / N for step in steps])
table("int", "golden_labels", "3 * 60", [step.labels_ for step in steps])
print(f"enum {{ GOLDEN_EPOCHS = {lloyd(start, 100).n_iter_} }}; /* until nothing changes */\n")
table("double", "golden_end", "5 * 3", [lloyd(start, 100).cluster_centers_.ravel()])
table("double", "golden_refilled", "5 * 3", [lloyd(far, 1).cluster_centers_.ravel()])
table("double", "golden_online", "2 * 5 * 3", [centres.ravel() for centres in after])
