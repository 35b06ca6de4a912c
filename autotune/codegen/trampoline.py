"""The call path: from a Python call to a kernel's entry in a tenth of a microsecond, when nothing of the call is new.

`fast_type` makes a type whose instances are called by one native vectorcall function. It compares the call with the
instance's `Table` of guards, makes the outputs, runs the entry; where no guard matches it calls `miss` in Python.
Knows the layouts of CPython's and NumPy's objects, which it probes before it trusts them; knows neither signatures nor
sessions. Where the probe fails, `Launch.run` does the same in Python.
"""

from __future__ import annotations

import ctypes
import struct
import sys
import sysconfig
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..ir.errors import BuildError
from . import jit
from .launch import ArrayGuard, Axis, Form, Launch, Table
from .runtime import ObjectStore, Runtime, immortal, kept


@dataclass(frozen=True)
class Layout:
    """Byte offsets inside a NumPy array object."""

    data: int
    ndim: int
    dims: int
    strides: int
    descr: int
    flags: int
    handler: int


def _unfit(why: str) -> BuildError:
    return BuildError(f"the native call path cannot be used here: {why}", reason="call-path")


def probe() -> Layout:
    """Find the fields of array objects by looking at known arrays. Raises BuildError that says what is unexpected."""
    if sys.implementation.name != "cpython" or struct.calcsize("P") != 8 or sys.byteorder != "little":
        raise _unfit("it needs 64-bit little-endian CPython")
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise _unfit("it needs a Python with a global interpreter lock")
    base = np.zeros((7, 5, 3), np.float32)
    samples: list[np.ndarray[Any, Any]] = [base, base[1:, ::2], base.T[:, 1:], np.zeros((11, 13))]
    samples.append(np.arange(6, dtype=np.int8).reshape(2, 3))
    handler = ctypes.PYFUNCTYPE(ctypes.c_void_p)(_numpy_api(305))()
    _PYTHON.Py_DecRef(ctypes.c_void_p(handler))
    words = [np.frombuffer(ctypes.string_at(id(a), np.ndarray.__basicsize__), np.int64) for a in samples]
    halves = [w.view(np.int32) for w in words]

    def offset(name: str, table: Sequence[Any], values: Sequence[int], width: int) -> int:
        found = [i for i in range(len(table[0])) if all(row[i] == v for row, v in zip(table, values, strict=True))]
        if len(found) != 1:
            raise _unfit(f"it cannot tell where NumPy arrays keep {name}")
        return found[0] * width

    # dimensions and strides are allocated together: the two words that lie nd * 8 apart in every sample
    pairs = {(i, j) for i in range(2, len(words[0])) for j in range(2, len(words[0]))
             if all(w[j] - w[i] == 8 * a.ndim for w, a in zip(words, samples, strict=True))}  # fmt: skip
    if len(pairs) != 1:
        raise _unfit("it cannot tell where NumPy arrays keep their shape")
    dims, strides = pairs.pop()
    for w, a in zip(words, samples, strict=True):
        size = 8 * a.ndim
        read = [struct.unpack(f"<{a.ndim}q", ctypes.string_at(int(w[i]), size)) for i in (dims, strides)]
        if read != [a.shape, a.strides] or w[1] != id(np.ndarray):
            raise _unfit("it reads other shapes than NumPy's arrays have")
    if ctypes.c_double.from_address(id(half := 0.5) + 16).value != half:
        raise _unfit("it cannot read Python's floats")
    owning = [w for w, a in zip(words, samples, strict=True) if a.flags.owndata]
    return Layout(
        data=offset("data", words, [a.ctypes.data for a in samples], 8),
        ndim=offset("ndim", halves, [a.ndim for a in samples], 4),
        dims=8 * dims, strides=8 * strides,
        descr=offset("dtype", words, [id(a.dtype) for a in samples], 8),
        flags=offset("flags", halves, [a.flags.num for a in samples], 4),
        handler=offset("their allocator", owning, [handler] * len(owning), 8),
    )  # fmt: skip


def _numpy_api(slot: int) -> int:
    """The address of a function of NumPy's C API (numpy/__multiarray_api.h, the same slots in all of 2.x)."""
    try:
        from numpy._core import _multiarray_umath  # type: ignore[attr-defined]
    except ImportError:
        raise _unfit("it needs NumPy 2") from None
    pointer = _PYTHON.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = pointer(_multiarray_umath._ARRAY_API, None)
    return int(ctypes.cast(table, ctypes.POINTER(ctypes.c_void_p))[slot] or 0)


_PYTHON = ctypes.PyDLL(None, handle=ctypes.pythonapi._handle)  # prototypes of our own: `pythonapi` is everybody's


class _Slot(ctypes.Structure):
    _fields_ = (("slot", ctypes.c_int), ("value", ctypes.c_void_p))


class _Spec(ctypes.Structure):
    _fields_ = (("name", ctypes.c_void_p), ("size", ctypes.c_int), ("item", ctypes.c_int), ("flags", ctypes.c_uint),
                ("slots", ctypes.POINTER(_Slot)))  # fmt: skip


class _Member(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("type", ctypes.c_int), ("offset", ctypes.c_ssize_t),
                ("flags", ctypes.c_int), ("doc", ctypes.c_char_p))  # fmt: skip


class _Handler(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char * 127), ("version", ctypes.c_uint8), ("context", ctypes.c_void_p),
                ("malloc", ctypes.c_void_p), ("calloc", ctypes.c_void_p), ("realloc", ctypes.c_void_p),
                ("free", ctypes.c_void_p))  # fmt: skip


@dataclass(frozen=True)
class FastType:
    """A subclass of `base` whose instances, once attached to a table, are called natively."""

    type: type
    _call: int
    _offset: int
    _keep: Any = field(repr=False)

    def attach(self, instance: Any, table: Table) -> None:
        """Give an instance its table; the caller keeps the table alive as long as the instance."""
        fields = (ctypes.c_int64 * 2).from_address(id(instance) + self._offset)
        fields[0], fields[1] = self._call, table.address


def fast_type(
    base: type, miss: Callable[..., Any], context: ContextVar[Any], runtime: Runtime, store: ObjectStore | None = None
) -> FastType:
    """Make the natively called subclass of `base`; `miss(instance, *args, **kwargs)` answers what no guard matches.

    A guard holds only while `context.get() is form.token`. Raises BuildError where this Python or NumPy does not fit.
    """
    layout = probe()
    offset = base.__basicsize__
    source = _SOURCE
    for name, value in {**asdict(layout), "table": offset + 8}.items():
        source = source.replace(name.upper(), str(value))
    python = ("PyContextVar_Get", "PyTuple_Size", "PyTuple_GetItem", "PyTuple_New", "PyTuple_SetItem", "PyCell_Get",
              "PyDict_GetItem", "Py_IncRef", "Py_DecRef", "PyObject_RichCompareBool", "PyObject_Vectorcall",
              "PyErr_NoMemory", "PyEval_SaveThread", "PyEval_RestoreThread")  # fmt: skip
    symbols = {name: ctypes.cast(getattr(_PYTHON, name), ctypes.c_void_p).value or 0 for name in python}
    symbols |= {name: runtime.symbols[name] for name in ("at_array_acquire", "at_array_release")}
    symbols |= {"PyArray_NewFromDescr": _numpy_api(94)}
    symbols |= {"at_ndarray": id(np.ndarray), "at_miss": id(miss), "at_context": id(context)}
    exports = ("at_memory", "at_malloc", "at_calloc", "at_realloc", "at_free", "at_check")
    loaded = immortal(jit.load(kept(source, store), "at_call", symbols, exports))
    at = loaded.addresses
    handler = _Handler(b"autotune", 1, None, at["at_malloc"], at["at_calloc"], at["at_realloc"], at["at_free"])
    make = _PYTHON.PyCapsule_New
    make.restype, make.argtypes = ctypes.py_object, [ctypes.c_void_p] * 3
    kind = ctypes.create_string_buffer(b"mem_handler")
    capsule = make(ctypes.addressof(handler), ctypes.addressof(kind), None)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(at["at_memory"])(id(capsule))

    members = (_Member * 2)(_Member(b"__vectorcalloffset__", 19, offset, 1, None))  # 19: Py_T_PYSSIZET, 1: read-only
    call = ctypes.cast(_PYTHON.PyVectorcall_Call, ctypes.c_void_p).value
    slots = (_Slot * 3)(_Slot(50, call), _Slot(72, ctypes.addressof(members)))  # Py_tp_call, Py_tp_members
    flags = (1 << 18) | (1 << 11)  # Py_TPFLAGS_DEFAULT, Py_TPFLAGS_HAVE_VECTORCALL
    title = ctypes.create_string_buffer(f"{base.__module__}.{base.__qualname__}".encode())
    spec = _Spec(ctypes.addressof(title), offset + 16, 0, flags, slots)
    build = _PYTHON.PyType_FromSpecWithBases
    build.restype, build.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.py_object]
    made = FastType(
        build(ctypes.addressof(spec), (base,)), loaded.address, offset,
        (loaded, handler, capsule, kind, members, title, miss, context),
    )  # fmt: skip
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))  # arrays made by it may outlive everything else
    _check(made, context, at["at_check"])
    return made


def _check(made: FastType, context: ContextVar[Any], entry: int) -> None:
    """One call of a kernel that stores a[0] + params[0] into its output, with all that could be wrong looked at."""
    array = np.arange(6, dtype=np.int64).reshape(2, 3)[:, :2]
    guard = ArrayGuard(0, array.dtype, (Axis(2, "general not 4K"), Axis(2, "exact", 8)), 0)
    launch = Launch(entry, 1, 1, ((array.dtype, (1, 1)),), ((0, 0),))
    table = Table()
    instance: Any = object.__new__(made.type)
    table.add("check", Form(1, (), (guard,), context.get()), launch)
    made.attach(instance, table)
    array[0, 0] = 39
    result = instance(array)
    right = result.shape == (1, 1) and result[0, 0] == 42 and result.ctypes.data % 64 == 0 and result.flags.owndata
    if not (right and result.flags.c_contiguous and result.flags.writeable and sys.getrefcount(result) <= 2):
        raise _unfit("its own test gave a wrong result")


# An entry is 14 words: positional, keywords, &names, guards, &guards, entry, threads, long, outputs, &outputs, inputs,
# 0, token, single. A static guard is 4 words: 1, place, object, how to compare. An array guard is 9: 0, place or -1
# (the array itself), -2 (a cell) or -3 (a dictionary), that object, name, dtype, ndim, flags, buffer, element bytes;
# and 3 a dimension: extent, rule, stride in bytes or place in params. An output is 4: dtype, ndim, &shape, bytes. All
# of it is read and written with the interpreter lock held.
_SOURCE = """
memory = 8

def at_memory(capsule):
    store(memory, capsule)

def at_malloc(ctx, size):
    return at_array_acquire(size)

def at_calloc(ctx, n, size):
    if n != 0 and n * size // n != size:
        return 0
    p = at_array_acquire(n * size)
    if p != 0:
        memset(p, 0, n * size)
    return p

def at_realloc(ctx, old, size):
    p = at_array_acquire(size)
    if p != 0 and old != 0:
        if size > load(old - 64):
            size = load(old - 64)
        memcpy(p, old, size)
        at_array_release(old)
    return p

def at_free(ctx, p, size):
    if p != 0:
        at_array_release(p)

def at_check(buffers, params, threads):
    store(load(buffers + 8), load(load(buffers)) + load(params))

def same(obj, held, how):
    if obj == held:
        return 1
    if how == 0 or load(obj + 8) != load(held + 8):
        return 0
    if how == 1:
        return load(obj + 16) == load(held + 16)
    return int32(PyObject_RichCompareBool(obj, held, 2)) == 1

def match(entry, args, kwnames, buffers, params, spans, held):
    store(held, 0)
    for k in range(load(entry + 8)):
        if PyTuple_GetItem(kwnames, k) != load(load(entry + 16) + 8 * k):
            return -1
    out = 0
    g = load(entry + 32)
    for n in range(load(entry + 24)):
        obj = load(g + 16)
        place = load(g + 8)
        if place >= 0:
            obj = load(args + 8 * place)
        elif place != -1:
            if place == -2:
                obj = PyCell_Get(obj)
                Py_DecRef(obj)
            else:
                obj = PyDict_GetItem(obj, load(g + 24))
            if obj == 0:
                return -1
            store(held, load(held) + 1)
            store(held + 8 * load(held), obj)
        if load(g) == 1:
            if not same(obj, load(g + 16), load(g + 24)):
                return -1
            g += 32
            continue
        ndim = load(g + 40)
        if load(obj + 8) != at_ndarray or load(obj + DESCR) != load(g + 32) or load32(obj + NDIM) != ndim:
            return -1
        if (load32(obj + FLAGS) & load(g + 48)) != load(g + 48):
            return -1
        item = load(g + 64)
        span = item
        dims = load(obj + DIMS)
        strides = load(obj + STRIDES)
        a = g + 72
        for d in range(ndim):
            dim = load(dims + 8 * d)
            stride = load(strides + 8 * d)
            rule = load(a + 8)
            if dim != load(a):
                return -1
            if rule == 0 and stride != load(a + 16):
                return -1
            if rule > 1:
                if stride <= item or (stride & (item - 1)) != 0:
                    return -1
                if rule > 2 and ((stride & 4095) == 0) != (rule == 3):
                    return -1
                store(params + 8 * load(a + 16), stride // item)
            span += (dim - 1) * stride
            a += 24
        data = load(obj + DATA)
        store(buffers + 8 * load(g + 56), data)
        store(spans + 16 * load(g + 56), data)
        store(spans + 16 * load(g + 56) + 8, data + span)
        if load(g + 48) & 1024:
            out = obj
        g = a
    return out

def overlap(spans, out, n):
    for i in range(n):
        if load(spans + 16 * i) < load(out + 8) and load(out) < load(spans + 16 * i + 8):
            return 1
    return 0

def forget(results, n):
    for i in range(n):
        Py_DecRef(load(results + 8 * i))
    return 0

def make(output):
    block = at_array_acquire(load(output + 24))
    if block == 0:
        return PyErr_NoMemory()
    Py_IncRef(load(output))
    array = PyArray_NewFromDescr(at_ndarray, load(output), load(output + 8), load(output + 16), 0, block, 1281, 0)
    if array == 0:
        at_array_release(block)
        return 0
    store32(array + FLAGS, load32(array + FLAGS) | 4)
    Py_IncRef(load(memory))
    store(array + HANDLER, load(memory))
    return array

def run(entry, out, buffers, params, held):
    results = stack(128)
    n = load(entry + 64)
    single = load(entry + 104)
    store(results, out)
    if out != 0:
        Py_IncRef(out)
    else:
        for o in range(n):
            array = make(load(entry + 72) + 32 * o)
            if array == 0:
                return forget(results, o)
            store(results + 8 * o, array)
            store(buffers + 8 * (load(entry + 80) + o), load(array + DATA))
    code = load(entry + 40)
    threads = load(entry + 48)
    if load(entry + 56):
        for h in range(load(held)):
            Py_IncRef(load(held + 8 + 8 * h))
        state = PyEval_SaveThread()
        call(code, buffers, params, threads)
        PyEval_RestoreThread(state)
        forget(held + 8, load(held))
    else:
        call(code, buffers, params, threads)
    if single:
        return load(results)
    whole = PyTuple_New(n)
    if whole == 0:
        return forget(results, n)
    for t in range(n):
        PyTuple_SetItem(whole, t, load(results + 8 * t))
    return whole

def at_call(self, args, nargsf, kwnames):
    buffers = stack(512)
    params = stack(512)
    spans = stack(1024)
    held = stack(520)
    value = stack(8)
    npos = nargsf & 9223372036854775807
    nkw = 0
    if kwnames != 0:
        nkw = PyTuple_Size(kwnames)
    if int32(PyContextVar_Get(at_context, 0, value)) != 0:
        return 0
    token = load(value)
    Py_DecRef(token)
    table = load(self + TABLE)
    order = load(table + 8)
    for e in range(load(table)):
        entry = load(order + 8 * e)
        if load(entry) == npos and load(entry + 8) == nkw and load(entry + 96) == token:
            out = match(entry, args, kwnames, buffers, params, spans, held)
            if out >= 0:
                store(order + 8 * e, load(order))
                store(order, entry)
                if out != 0 and overlap(spans, spans + 16 * load(entry + 80), load(entry + 80)):
                    break
                return run(entry, out, buffers, params, held)
    vector = stack(8 * (npos + nkw + 1))
    store(vector, self)
    memcpy(vector + 8, args, 8 * (npos + nkw))
    return PyObject_Vectorcall(at_miss, vector, npos + 1, kwnames)
"""
