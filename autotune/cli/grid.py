"""What was asked for: words such as `m=64:512:64` and `x=f32[m,k]`, or a file of them, become cases.

Knows how parameters are written and how a user's function is found; must not know how a case is run. What is wrong with
the words is a UsageError here, before anything runs; what only shows when a function is traced belongs to its case.
"""

from __future__ import annotations

import inspect
import itertools
import json
import math
import re
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial, reduce
from importlib import import_module
from pathlib import Path
from typing import Any

from ..ir.dtypes import dtype as parse_dtype
from ..ir.errors import AutotuneError, SignatureError, UsageError

MAX_CASES = 100_000
_RANGE = re.compile(r"(-?\d+):(-?\d+)(?::(-?\d+))?")
_ARRAY = re.compile(r"(\w+)=(\w+)\[([^\]]*)\]")
Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
Order = tuple[list[str], list[str]]  # names to pass by position, and by keyword
Shapes = Mapping[str, tuple[str, list[str]]]


@dataclass(frozen=True)
class Case:
    """One choice of parameters. `make()`: the function and the arguments to trace it with; it may raise what a function
    or a Spec raises. `arrays`: those of a user's function, as they were written."""

    op: str
    params: Mapping[str, Any]
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
    """The values in a word: `a,b`, `first:last:step` with its end included, or one that `parse` makes a tuple of."""
    with suppress(ValueError, AutotuneError):  # what does not parse as one value is a list of them
        if isinstance(parse(text), tuple) and "," in text:
            return [text]
    out: list[str] = []
    for part in map(str.strip, _parts(text)):
        found = _RANGE.fullmatch(part)
        if found is None:
            out.append(part)
            continue
        first, last, step = int(found[1]), int(found[2]), int(found[3] or 1)
        if step == 0 or (last - first) * step < 0:
            raise UsageError(f"{part}: counting from {first} to {last} by {step} never arrives")
        counted = range(first, last + (1 if step > 0 else -1), step)
        if len(counted) > MAX_CASES:
            raise UsageError(f"{part} has {len(counted):,} values; at most {MAX_CASES:,} are allowed")
        out += map(str, counted)
    if "" in out:
        raise UsageError(f"{text!r} has an empty value; write a,b or first:last:step")
    return out


def _parts(text: str) -> list[str]:
    """The text between its commas; those within brackets separate nothing."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def cases(op: str, words: Sequence[str], dtype: str | None = None) -> list[Case]:
    """Every combination of the words' values, the last word changing fastest."""
    pairs: dict[str, str] = {}
    arrays: dict[str, tuple[str, list[str]]] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name.isidentifier() or name in pairs or name in arrays:
            raise UsageError(f"{word!r} is no parameter, or given twice; write name=value, as m=64,128 or m=64:512:64")
        if found := _ARRAY.fullmatch(word):
            arrays[name] = _dtype(found[2]), [e.strip() for e in found[3].split(",")] if found[3].strip() else []
        else:
            pairs[name] = text
    if ":" in op:
        return _user(op, arrays, pairs, dtype)
    if arrays:
        raise UsageError(f"{op} makes its arrays from its parameters; brackets are for functions such as pkg.mod:fn")
    return _named(op, pairs, _dtype(dtype or "f32"))


def _named(op: str, pairs: Mapping[str, str], dtype: str) -> list[Case]:
    from ..ops import OPS

    if op not in OPS:
        raise UsageError(f"no operation {op!r}; there are {', '.join(OPS)}, and functions of your own as pkg.mod:fn")
    known, out = OPS[op], []
    parsers = {name: parse for name, (_, parse) in known.params.items()}
    for params in _product({name: values(text, parsers.get(name, str)) for name, text in pairs.items()}):
        make: Callable[[], Call] = lambda given=params: (*known.make(given, dtype), {})  # type: ignore[misc]
        with suppress(SignatureError):  # not a wrong word but an array that cannot be: the case's own result
            make()
        out.append(Case(op, params, dtype, make))
    return out


def _user(op: str, arrays: Shapes, pairs: Mapping[str, str], dtype: str | None) -> list[Case]:
    fn = function(op)
    if dtype is not None or not arrays:
        raise UsageError(f"{op}: name its arrays with their dtypes, such as 'x=f32[m,k]', and leave --dtype out")
    wanted = dict.fromkeys(e for _, extents in arrays.values() for e in extents if not e.isdecimal())
    if wrong := [e for e in wanted if not e.isidentifier()]:
        raise UsageError(f"{op}: {wrong[0]!r}: in brackets stand integers and names only")
    if unbound := [name for name in wanted if name not in pairs]:
        raise UsageError(f"{op}: {', '.join(unbound)} in brackets has no value; add {unbound[0]}=64, or a range")
    kinds = ",".join(dict.fromkeys(kind for kind, _ in arrays.values()))
    written = tuple(f"{name}={kind}[{','.join(extents)}]" for name, (kind, extents) in arrays.items())
    order = _arguments(op, fn, [*arrays, *(name for name in pairs if name not in wanted)])
    out = []
    for params in _product({name: values(text) for name, text in pairs.items()}):
        for name in wanted:
            if not isinstance(params[name], int) or params[name] < 0:
                raise UsageError(f"{name}={params[name]}: an extent is an integer, 0 or more")
        out.append(Case(op, params, kinds, partial(_call, fn, order, arrays, params), written))
    return out


def _call(fn: Callable[..., Any], order: Order, arrays: Shapes, params: Mapping[str, Any]) -> Call:
    from ..tracer import spec

    def argument(name: str) -> Any:
        if name not in arrays:
            return params[name]
        kind, extents = arrays[name]
        return spec(kind, [int(e) if e.isdecimal() else params[e] for e in extents])

    return fn, tuple(map(argument, order[0])), {name: argument(name) for name in order[1]}


def _arguments(op: str, fn: Callable[..., Any], names: list[str]) -> Order:
    """Names to pass by position and by keyword, as a call in Python would most likely pass them."""
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # a ufunc or builtin: by position, in the order given
        return names, []
    first = [p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_ONLY and p.name in names]
    try:
        bound = signature.bind(*first, **{name: name for name in names if name not in first})
    except TypeError as error:
        raise UsageError(f"{op}: {error}; it takes {signature}") from None
    return list(bound.args), list(bound.kwargs)


def function(name: str) -> Callable[..., Any]:
    """The function that `pkg.mod:fn` names; modules in the working directory are found too."""
    if not re.fullmatch(r"[\w.]+:[\w.]+", name):
        raise UsageError(f"{name!r} names no function; write pkg.mod:fn")
    if "" not in sys.path:
        sys.path.insert(0, "")
    module, _, path = name.partition(":")
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


def _scalar(text: str) -> int | float | str:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def _product(lists: Mapping[str, list[str]]) -> list[dict[str, Any]]:
    total = math.prod(map(len, lists.values()))
    if total > MAX_CASES:
        raise UsageError(f"{total:,} cases; at most {MAX_CASES:,} are allowed in one sweep")
    return [dict(zip(lists, map(_scalar, row))) for row in itertools.product(*lists.values())]


def read(path: Path, ignored: Sequence[str] = ()) -> list[Case]:
    """The cases of a file: TOML (`[[case]]` tables), JSON (a list, or {"case": [...]}) or JSON lines.

    An entry has `op`, `params` (as on the command line, or lists), `dtype`, and `arrays` for a user's function. Records
    of an earlier sweep are entries too: `ignored` are their other fields.
    """
    out = [case for number, row in enumerate(entries(path), 1) for case in entry(path, number, row, ignored)]
    if not out:
        raise UsageError(f"{path} has no cases: write [[case]] tables, or a JSON list of objects with op and params")
    return out


def entries(path: Path) -> list[Any]:
    """The entries of such a file, as they are."""
    try:
        return _rows(path.read_text("utf-8"), path.suffix)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None


def entry(path: Path, number: int, row: Any, ignored: Sequence[str] = ()) -> list[Case]:
    """The cases of one entry of a file."""
    try:
        op, params, arrays = row["op"], row.get("params", {}), row.get("arrays", {})
        if unknown := set(row) - {"op", "params", "dtype", "arrays", *ignored}:
            raise UsageError(f"unknown key {min(unknown)!r}; known are op, params, dtype, arrays")
        pairs = [*arrays.items(), *params.items()]
        given = [f"{n}={','.join(map(str, v)) if isinstance(v, list) else v}" for n, v in pairs]
        return cases(op, given, None if ":" in op else row.get("dtype"))
    except (KeyError, TypeError, AttributeError):
        raise UsageError(f"{path}, case {number}: an entry is a table with op, and tables params, arrays") from None
    except UsageError as error:
        raise UsageError(f"{path}, case {number}: {error}") from None


def _rows(text: str, suffix: str) -> list[Any]:
    try:
        value: Any = tomllib.loads(text) if suffix == ".toml" else json.loads(text)
    except json.JSONDecodeError:
        value = [json.loads(line) for line in text.splitlines() if line.strip()]
    if isinstance(value, dict):
        value = value.get("case", [value] if "op" in value else [])
    return value if isinstance(value, list) else [value]
