"""What was asked for: words such as `m=64:512:64` and `x=f32[m,k]`, or a file of them, become cases.

Knows the notation of parameters and how a user's function is found. Whatever is wrong with the words is a UsageError here,
before anything runs; what only shows when a function is traced belongs to its case. Must not know how a case is run.
"""

from __future__ import annotations

import inspect
import itertools
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, reduce
from importlib import import_module
from pathlib import Path
from typing import Any

from ..ir.dtypes import dtype as parse_dtype
from ..ir.errors import AutotuneError, SignatureError, UsageError

MAX_CASES = 100_000
_RANGE = re.compile(r"(-?\d+):(-?\d+)(?::(-?\d+))?")
_ARRAY = re.compile(r"(\w+)=(\w+)\[([^\]]*)\]")
Value = int | float | str
Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """One choice of parameters. `make()` is the function and the arguments to trace it with; it may raise what a function
    or a Spec raises. `arrays`: the brackets of a user's function as they were written."""

    op: str
    params: Mapping[str, Value]
    dtype: str
    make: Callable[[], Call] = field(compare=False, repr=False)
    arrays: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join([self.op, *(f"{k}={v}" for k, v in self.params.items())])

    @property
    def key(self) -> str:
        """Tells this case from every other, as text."""
        return json.dumps([self.op, dict(self.params), self.dtype, self.arrays], sort_keys=True)


def values(text: str, parse: Callable[[str], Any] = str) -> list[str]:
    """The values that a word lists: `a,b`, `a:b:s` with its end included, or one that `parse` makes a tuple of."""
    try:
        if isinstance(parse(text), tuple) and "," in text:
            return [text]
    except (ValueError, AutotuneError):
        pass  # not one value: a list of them, whose members are checked one by one
    out: list[str] = []
    for part in _split(text):
        found = _RANGE.fullmatch(part)
        if found is None:
            out.append(part)
            continue
        first, last, step = int(found[1]), int(found[2]), int(found[3] or 1)
        if step == 0 or (last - first) * step < 0:
            raise UsageError(f"{part}: counting from {first} to {last} by {step} never arrives")
        counted = range(first, last + (1 if step > 0 else -1), step)
        if len(counted) > MAX_CASES:
            raise UsageError(f"{part} has {len(counted)} values; at most {MAX_CASES} are allowed")
        out += map(str, counted)
    if "" in out:
        raise UsageError(f"{text!r} has an empty value; write a,b or first:last:step")
    return out


def _split(text: str) -> list[str]:
    """At commas that are in no brackets."""
    parts, depth = [""], 0
    for c in text:
        depth += (c in "([") - (c in ")]")
        if c == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    return [part.strip() for part in parts]


def scalar(text: str) -> Value:
    """A number, or the text itself."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def cases(op: str, words: Sequence[str], dtype: str | None = None) -> list[Case]:
    """Every combination of the words' values, the last word changing fastest."""
    pairs: dict[str, str] = {}
    arrays: dict[str, tuple[str, str]] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"{word!r} is no parameter; write name=value, such as m=64,128 or m=64:512:64")
        if name in pairs or name in arrays:
            raise UsageError(f"{name} is given twice")
        if found := _ARRAY.fullmatch(word):
            arrays[name] = found[2], found[3]
        elif "[" in text and ":" in op:
            raise UsageError(f"{word!r} is no array; write it as name=dtype[extents], such as x=f32[m,128]")
        else:
            pairs[name] = text
    if ":" in op:
        return _user(op, arrays, pairs, dtype)
    if arrays:
        raise UsageError(f"{op} makes its arrays from its parameters; brackets are for functions such as pkg.mod:fn")
    return _named(op, pairs, dtype or "f32")


def _named(op: str, pairs: Mapping[str, str], dtype: str) -> list[Case]:
    from ..ops import OPS

    if op not in OPS:
        raise UsageError(f"no operation {op!r}; there are {', '.join(OPS)}, and functions of your own as pkg.mod:fn")
    known, kind, out = OPS[op], _dtype(dtype), []
    for params in _product({n: values(t, known.params[n][1] if n in known.params else str) for n, t in pairs.items()}):
        made = lambda given=params: (*known.make(given, kind), {})
        try:
            made()
        except UsageError:
            raise
        except AutotuneError:
            pass  # not a wrong word but an array that cannot be: the case's own result
        out.append(Case(op, params, kind, made))
    return out


def _user(op: str, arrays: Mapping[str, tuple[str, str]], pairs: Mapping[str, str], dtype: str | None) -> list[Case]:
    fn = function(op)
    if dtype is not None:
        raise UsageError(f"{op}: the arrays name their own dtypes (x={dtype}[...]); leave --dtype out")
    if not arrays:
        raise UsageError(f"{op} needs its arrays, such as 'x=f32[m,k]'; it takes {_takes(fn)}")
    shapes: dict[str, tuple[str, list[str]]] = {}
    for name, (kind, text) in arrays.items():
        extents = [part.strip() for part in text.split(",")] if text.strip() else []
        if wrong := [e for e in extents if not (e.isdecimal() or e.isidentifier())]:
            raise UsageError(f"{name}={kind}[{text}]: {wrong[0]!r}: in brackets stand integers and names only")
        shapes[name] = _dtype(kind), extents
    wanted = dict.fromkeys(e for _, extents in shapes.values() for e in extents if not e.isdecimal())
    if unbound := [name for name in wanted if name not in pairs]:
        raise UsageError(f"{op}: {', '.join(unbound)} in brackets has no value; add {unbound[0]}=64, {unbound[0]}=64:512:64")
    kinds = ",".join(dict.fromkeys(kind for kind, _ in shapes.values()))
    written = tuple(f"{n}={kind}[{','.join(extents)}]" for n, (kind, extents) in shapes.items())
    statics = [name for name in pairs if name not in wanted]
    order = _arguments(op, fn, list(shapes), statics)
    out = []
    for params in _product({n: values(t) for n, t in pairs.items()}):
        for name in wanted:
            if not isinstance(params[name], int) or params[name] < 0:
                raise UsageError(f"{name}={params[name]}: an extent is an integer, 0 or more")
        make = lambda given=params: _call(fn, order, shapes, given)
        out.append(Case(op, params, kinds, make, written))
    return out


def _call(
    fn: Callable[..., Any], order: tuple[list[str], list[str]], shapes: Mapping[str, tuple[str, list[str]]],
    params: Mapping[str, Any],
) -> Call:  # fmt: skip
    from ..tracer import spec

    def argument(name: str) -> Any:
        if name not in shapes:
            return params[name]
        kind, extents = shapes[name]
        return spec(kind, [int(e) if e.isdecimal() else params[e] for e in extents])

    return fn, tuple(map(argument, order[0])), {name: argument(name) for name in order[1]}


def _arguments(op: str, fn: Callable[..., Any], arrays: list[str], statics: list[str]) -> tuple[list[str], list[str]]:
    """Names to pass by position and by keyword, as a call in Python would most likely pass them."""
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # a ufunc or builtin: by position, in the order given
        return [*arrays, *statics], []
    names = {name: name for name in (*arrays, *statics)}
    positional = [p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_ONLY and p.name in names]
    try:
        bound = signature.bind(*positional, **{n: n for n in names if n not in positional})
    except TypeError as error:
        raise UsageError(f"{op}: {error}; it takes {_takes(fn)}") from None
    return list(bound.args), list(bound.kwargs)


def _takes(fn: Callable[..., Any]) -> str:
    try:
        return str(inspect.signature(fn))
    except (TypeError, ValueError):
        return "what NumPy says"


@cache
def function(name: str) -> Callable[..., Any]:
    """The function that `pkg.mod:fn` names; modules in the working directory are found too."""
    module, _, path = name.partition(":")
    if not re.fullmatch(r"[\w.]+:[\w.]+", name):
        raise UsageError(f"{name!r} names no function; write pkg.mod:fn")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found = reduce(getattr, path.split("."), import_module(module))
    except Exception as error:  # a module may raise anything while it is imported
        raise UsageError(f"{name}: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise UsageError(f"{name} is a {type(found).__name__}, not a function")
    return found


def _dtype(name: str) -> str:
    try:
        return parse_dtype(name).name
    except SignatureError as error:
        raise UsageError(str(error)) from None


def _product(lists: Mapping[str, list[str]]) -> Iterator[dict[str, Any]]:
    total = math.prod(map(len, lists.values()))
    if total > MAX_CASES:
        raise UsageError(f"{total:,} cases; at most {MAX_CASES:,} are allowed in one sweep")
    for row in itertools.product(*lists.values()):
        yield {name: scalar(text) for name, text in zip(lists, row)}


def read(path: Path, ignored: Iterable[str] = ()) -> list[Case]:
    """The cases of a file: TOML (`[[case]]` tables), JSON (a list, or {"cases": [...]}) or JSON lines.

    An entry has `op`, `params` (values as on the command line, or lists), `dtype`, and `arrays` for a user's function.
    Entries may also be records of an earlier sweep: `ignored` are the fields of those that mean nothing here.
    """
    try:
        text = path.read_text("utf-8")
        rows = _parse(text, path.suffix)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    out: list[Case] = []
    for number, row in enumerate(rows, 1):
        try:
            out += _entry(row, ignored)
        except UsageError as error:
            raise UsageError(f"{path}, case {number}: {error}") from None
    if not out:
        raise UsageError(f"{path} has no cases: [[case]] tables, or a JSON list of objects with op and params")
    return out


def _parse(text: str, suffix: str) -> list[Any]:
    if suffix == ".toml":
        import tomllib

        value: Any = tomllib.loads(text)
    else:
        try:
            value = json.loads(text)
        except ValueError:
            value = [json.loads(line) for line in text.splitlines() if line.strip()]
    if isinstance(value, dict):
        value = value.get("case", value.get("cases", [value] if "op" in value else []))
    return value if isinstance(value, list) else [value]


def _entry(row: Any, ignored: Iterable[str]) -> list[Case]:
    if not isinstance(row, dict) or not isinstance(row.get("op"), str):
        raise UsageError("an entry is a table with op = NAME and params")
    if unknown := set(row) - {"op", "params", "dtype", "arrays", *ignored}:
        raise UsageError(f"unknown key {min(unknown)!r}; known are op, params, dtype, arrays")
    params, arrays = row.get("params", {}), row.get("arrays", {})
    if not isinstance(params, dict) or not isinstance(arrays, dict):
        raise UsageError("params and arrays are tables")
    words = [f"{n}={','.join(map(str, v)) if isinstance(v, list) else v}" for n, v in {**arrays, **params}.items()]
    user = ":" in row["op"]
    return cases(row["op"], words, None if user else row.get("dtype"))
