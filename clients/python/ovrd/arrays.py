"""Arrays as they travel: NPY and safetensors.

With numpy an array is a numpy array. Without it what is read is a memoryview, which has a shape, indices and
tolist() too; numpy.asarray() takes it later without a copy.
"""
from __future__ import annotations

import ast
import io
import json
import struct
import sys
from typing import TYPE_CHECKING, Any, Union

from .errors import OvrdError

try:
    import numpy
except ImportError:
    numpy = None  # type: ignore[assignment]

HAVE_NUMPY = numpy is not None

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
else:
    Array = Any
Arrayish = Union["Array", "list[Any]", "tuple[Any, ...]"]

# By the names of NPY and of safetensors; all little-endian.
_FORMATS = {"<f4": "f", "<f8": "d", "<i4": "i", "<i8": "q", "<u2": "H", "|u1": "B", "|i1": "b", "|b1": "?",
            "F32": "f", "F64": "d", "I64": "q", "I32": "i", "U8": "B"}  # fmt: skip
_TO_NUMPY = {"F32": "<f4", "F64": "<f8", "I64": "<i8", "I32": "<i4", "U8": "|u1"}


def _view(data: memoryview, dtype: str, shape: tuple[int, ...]) -> Array:
    if dtype not in _FORMATS:
        raise OvrdError(f"this client does not read arrays of {dtype}")
    if numpy is not None:
        return numpy.frombuffer(data, _TO_NUMPY.get(dtype, dtype)).reshape(shape)
    if sys.byteorder != "little":
        raise OvrdError("on a big-endian machine arrays need numpy")
    code = _FORMATS[dtype]
    flat: Any = data if all(shape) else memoryview(b"")
    return flat.cast(code, shape) if all(shape) else flat.cast(code)


def read_npy(content: bytes) -> Array:
    """The array of an NPY file, versions 1 to 3, in C order."""
    if content[:6] != b"\x93NUMPY" or len(content) < 12:
        raise OvrdError("the answer is not an NPY array")
    wide = content[6] > 1
    (size,) = struct.unpack_from("<I" if wide else "<H", content, 8)
    start = (12 if wide else 10) + size
    try:
        header = ast.literal_eval(content[start - size:start].decode("utf-8" if content[6] > 2 else "latin-1"))
        dtype, shape, fortran = header["descr"], tuple(header["shape"]), header["fortran_order"]
    except (ValueError, SyntaxError, KeyError, TypeError) as error:
        raise OvrdError("the header of the NPY array is damaged") from error
    if fortran:
        raise OvrdError("the NPY array is in Fortran order, which ovrd does not send")
    return _view(memoryview(content)[start:], dtype, shape)


def write_npy(array: Any) -> bytes:
    """NPY of anything that numpy makes an array of; without numpy, of a C-ordered buffer."""
    if numpy is not None:
        out = io.BytesIO()
        numpy.save(out, numpy.ascontiguousarray(array), allow_pickle=False)
        return out.getvalue()
    view = memoryview(array)
    names = {letter: name for name, letter in reversed(_FORMATS.items()) if name[0] in "<|"}
    if view.format not in names or not view.c_contiguous or sys.byteorder != "little":
        raise OvrdError("without numpy only C-ordered buffers of plain numbers can be sent")
    header = str({"descr": names[view.format], "fortran_order": False, "shape": tuple(view.shape)})
    header += " " * (63 - (10 + len(header)) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode("latin-1") + view.tobytes()


class Tensors(dict[str, Array]):
    """The tensors of a safetensors file by name; `metadata` is what it says of itself."""

    metadata: dict[str, str]


def read_safetensors(content: bytes) -> Tensors:
    tensors = Tensors()
    try:
        (size,) = struct.unpack_from("<Q", content)
        header = json.loads(content[8:8 + size])
        tensors.metadata = header.pop("__metadata__", {})
        for name, entry in header.items():
            first, end = entry["data_offsets"]
            data = memoryview(content)[8 + size + first:8 + size + end]
            tensors[name] = _view(data, entry["dtype"], tuple(entry["shape"]))
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise OvrdError("this is not a safetensors file") from error
    return tensors
