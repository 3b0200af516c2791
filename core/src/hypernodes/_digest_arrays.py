"""How NumPy's and pandas' values are taken apart for their digest. Both are found in `sys.modules`, never imported."""

from __future__ import annotations

import sys
from collections.abc import Callable
from hashlib import sha256
from typing import Any

from hypernodes._digest import Opened, Refusal, blob
from hypernodes._digest_kinds import Raw, a_kind_of

__all__ = ["opener_of"]

Opener = Callable[[Any], bytes | Opened]
ROWS = 1 << 16  # elements of a strided array that are made contiguous at a time


def opener_of(kind: type) -> Opener | None:
    """What takes this type of NumPy, pandas or PyArrow apart; None where it is none that is known."""
    library = kind.__module__.partition(".")[0]
    module: Any = sys.modules[library]
    if library == "numpy":
        if kind in (module.ndarray, module.memmap):
            return array
        if issubclass(kind, module.generic):
            return lambda value: Opened(b"numpy scalar", (module.asarray(value),), ("",))
        if issubclass(kind, module.dtype):
            return lambda value: Opened(b"numpy dtype", (_dtype(value),))
        return _refuse if issubclass(kind, module.ndarray) else None
    if library == "pandas":
        return _pandas_opener(kind, module)
    from hypernodes._digest_arrow import opener_of as arrow_opener_of

    return arrow_opener_of(kind)


def _refuse(value: Any) -> Opened:
    raise Refusal(f"is {a_kind_of(type(value))}, of which only the plain array's content is known")


# -- NumPy


def array(value: Any) -> Opened:
    """Type, shape and content of an array, whatever its layout in memory; large ones are hashed where they lie."""
    dtype = value.dtype
    head = (_dtype(dtype), value.shape)
    if dtype.fields is not None:
        # field by field: what lies between them is no content
        steps = ("", "", *(f"[{name!r}]" for name in dtype.names))
        return Opened(b"numpy record", (*head, *(value[name] for name in dtype.names)), steps)
    if dtype.hasobject or dtype.kind == "T":
        return Opened(b"numpy objects", (*head, value.reshape(-1).tolist()), ("", "", ""))
    return Opened(b"numpy array", (*head, Raw(_content(value))))


def _content(value: Any) -> bytes:
    numpy: Any = sys.modules["numpy"]
    if value.dtype.kind in "fc" and value.dtype.itemsize > (8 if value.dtype.kind == "f" else 16):
        raise Refusal(f"is an array of {value.dtype.name}, whose elements hold padding; use float64 or complex128")
    if not value.nbytes:
        return blob(b"b", b"")
    if value.flags.c_contiguous:
        return blob(b"b", memoryview(value.reshape(-1).view(numpy.uint8)))
    if value.nbytes <= ROWS:
        return blob(b"b", value.tobytes())
    whole = sha256(b"b" + value.nbytes.to_bytes(8, "little"))
    blocks = numpy.nditer(value, flags=["external_loop", "buffered"], order="C", buffersize=ROWS)
    with blocks:
        for block in blocks:
            whole.update(numpy.ascontiguousarray(block).view(numpy.uint8))
    return b"#" + whole.digest()


def _dtype(dtype: Any) -> tuple[Any, ...]:
    """Everything that tells two dtypes apart, as plain data."""
    if dtype.fields is not None:
        fields = tuple((name, *dtype.fields[name][1:], _dtype(dtype.fields[name][0])) for name in dtype.names)
        return ("record", fields, dtype.itemsize, dtype.isalignedstruct)
    if dtype.subdtype is not None:
        return ("subarray", _dtype(dtype.subdtype[0]), dtype.shape)
    if dtype.kind == "T":
        return ("string", getattr(dtype, "coerce", True), getattr(dtype, "na_object", "none given"))
    return (type(dtype).__name__, dtype.str)


# -- pandas


def _pandas_opener(kind: type, pandas: Any) -> Opener | None:
    if kind is pandas.DataFrame:
        return _frame
    if kind is pandas.Series:
        return _series
    if issubclass(kind, pandas.Index):
        return _index
    if issubclass(kind, pandas.api.extensions.ExtensionArray):
        return _extension
    if kind is pandas.Timestamp:
        return lambda value: Opened(b"Timestamp", (value.value, value.unit, value.tzinfo, value.fold))
    if kind is pandas.Timedelta:
        return lambda value: Opened(b"Timedelta", (value.value, value.unit))
    if kind is pandas.Interval:
        return lambda value: Opened(b"Interval", (value.left, value.right, value.closed))
    if kind is pandas.Period:
        return lambda value: Opened(b"Period", (value.ordinal, value.freqstr))
    for name in ("NA", "NaT"):
        if kind is type(getattr(pandas, name)):
            return lambda value, name=name: Opened(b"pandas " + name.encode(), ())  # type: ignore[misc]
    if issubclass(kind, pandas.api.extensions.ExtensionDtype):
        return lambda value: Opened(b"pandas dtype", (type(value).__name__, str(value)))
    return None


def _frame(value: Any) -> Opened:
    columns = [_column(value.iloc[:, at]) for at in range(value.shape[1])]
    parts = (value.columns, value.index, value.attrs, value.flags.allows_duplicate_labels, columns)
    return Opened(b"DataFrame", parts, (".columns", ".index", ".attrs", "", ".<column>"))


def _series(value: Any) -> Opened:
    parts = (value.name, value.index, value.attrs, value.flags.allows_duplicate_labels, _column(value))
    return Opened(b"Series", parts, (".name", ".index", ".attrs", "", ""))


def _column(value: Any) -> Any:
    """The content of a series or an index: a NumPy array where it is one, else pandas' own."""
    numpy: Any = sys.modules["numpy"]
    return value.to_numpy() if isinstance(value.dtype, numpy.dtype) else value.array


def _index(value: Any) -> Opened:
    pandas: Any = sys.modules["pandas"]
    kind, names = type(value).__name__, list(value.names)
    if isinstance(value, pandas.RangeIndex):
        return Opened(b"Index", (kind, names, value.start, value.stop, value.step))
    if isinstance(value, pandas.MultiIndex):
        levels = [value.get_level_values(at) for at in range(value.nlevels)]
        return Opened(b"Index", (kind, names, levels), ("", ".names", ""))
    return Opened(b"Index", (kind, names, getattr(value, "freqstr", None), _column(value)), ("", ".names", "", ""))


def _extension(value: Any) -> Opened:
    """An array of one of pandas' own types, by what its elements are."""
    pandas: Any = sys.modules["pandas"]
    dtype = value.dtype
    kind = type(dtype).__name__
    if isinstance(dtype, pandas.CategoricalDtype):
        parts: tuple[Any, ...] = (kind, value.categories, value.ordered, value.codes)
        return Opened(b"pandas array", parts, ("", ".categories", "", ".codes"))
    if isinstance(dtype, pandas.DatetimeTZDtype):
        return Opened(b"pandas array", (kind, dtype.unit, dtype.tz, value.view("i8")), ("", "", ".tz", ""))
    if isinstance(dtype, pandas.PeriodDtype):
        return Opened(b"pandas array", (kind, str(dtype), value.view("i8")))
    if isinstance(dtype, pandas.IntervalDtype):
        return Opened(b"pandas array", (kind, value.closed, value.left, value.right))
    if isinstance(dtype, pandas.StringDtype):
        parts = (kind, dtype.storage, dtype.na_value, value.to_numpy(dtype=object))
        if dtype.storage == "pyarrow":
            parts = (*parts[:3], value.__arrow_array__())
        return Opened(b"pandas array", parts)
    if isinstance(dtype, pandas.ArrowDtype):
        return Opened(b"pandas array", (kind, value.__arrow_array__()))
    plain = getattr(dtype, "numpy_dtype", None)
    if plain is not None and hasattr(value, "isna") and kind in _MASKED:
        missing = value.isna()
        return Opened(b"pandas array", (kind, missing, value.to_numpy(dtype=plain, na_value=plain.type(0))))
    if isinstance(dtype, sys.modules["numpy"].dtype) or kind == "NumpyEADtype":
        return Opened(b"pandas array", ("numpy", value.to_numpy()))
    raise Refusal(f"is a pandas array of type '{dtype}', which is not known")


_MASKED = {"BooleanDtype", *(f"{sign}Int{size}Dtype" for sign in ("", "U") for size in (8, 16, 32, 64))}
_MASKED |= {"Float32Dtype", "Float64Dtype"}
