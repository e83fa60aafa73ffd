"""Files as numpy and csv write them, for tests/core/test_intake.c, and what the columns come to.

python3 tests/golden/arrays.py > tests/core/golden_arrays.h && clang-format -i tests/core/golden_arrays.h
"""
import io
import struct

import numpy as np

VALUES = [[0, 1.5, -2.25], [1e-3, 255, 7], [3, -0.5, 1e6], [42, 0.125, -1]]
IMAGES = np.arange(4 * 2 * 3).reshape(4, 2, 3) * 10


def npy(array, **options):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **options)
    return file.getvalue()


def idx(array):
    codes = {"u1": 8, "i1": 9, "i2": 0xB, "i4": 0xC, "f4": 0xD, "f8": 0xE}
    head = bytes([0, 0, codes[array.dtype.str[1:]], array.ndim])
    head += b"".join(struct.pack(">I", size) for size in array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def show(name, data):
    print(f"static const unsigned char {name}[] = {{{', '.join(map(str, data))}}};")


print("/* Made by tests/golden/arrays.py with numpy " + np.__version__ + ". */")
values = np.array(VALUES)
show("npy_f8", npy(values))
show("npy_f4", npy(values.astype("f4"), version=(2, 0)))
show("npy_f8_big", npy(values.astype(">f8")))
show("npy_fortran", npy(np.asfortranarray(values)))
show("npy_images_u1", npy(IMAGES.astype("u1"), version=(3, 0)))
show("npy_images_i8", npy(IMAGES.astype("i8")))
show("npy_labels_i8", npy(np.array([2, 0, 1, 2])))
show("npy_labels_i4", npy(np.array([[2], [0], [1], [2]], "i4")))
show("npy_colour", npy(np.arange(4 * 2 * 2 * 3).reshape(4, 2, 2, 3).astype("u1")))
show("npy_negative_i2", npy(np.array([-300, 300, 5, 6], ">i2")))
show("npy_objects", npy(np.array(["a", None], object), allow_pickle=True))
show("npy_text", npy(np.array(["a", "b"])))
show("npy_half", npy(values.astype("f2")))
show("npy_nan", npy(np.array([[1, 2, 3], [4, 5, np.nan]])))
show("npy_huge", npy(np.array([1, 1e39])))
show("npy_scalar", npy(np.array(3.0)))
show("npy_empty", npy(np.zeros((0, 3))))
show("idx_images_u1", idx(IMAGES.astype("u1")))
show("idx_images_i2", idx(IMAGES.astype("i2")))
show("idx_f4", idx(values.astype("f4")))
show("idx_f8", idx(values))
show("idx_i4", idx(np.array([[-70000, 70000], [1, 2], [3, 4], [5, 6]], "i4")))
show("idx_i1", idx(np.array([-128, 127, 0, 1], "i1")))
show("idx_label_bytes", idx(np.array([2, 0, 1, 2], "u1")))
