"""Results of a search as the autotuning community's "T4" documents: what each configuration took, or why it failed.

Knows the JSON (github.com/odgaard/TuningSchema, results schema 1.0.0) as Kernel Tuner and KTT write it, plain or
compressed, and trusts nothing in it. Must not know what a configuration means. Seconds here, milliseconds in the file.
"""

from __future__ import annotations

import gzip
import json
import lzma
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..devices.records import Status
from ..ir.errors import CacheError

VERSION = "1.0.0"
MAX_BYTES = 1 << 28  # of JSON
_UNITS = {"": 1e-3, "ms": 1e-3, "s": 1.0, "us": 1e-6, "µs": 1e-6, "ns": 1e-9, "seconds": 1.0, "milliseconds": 1e-3}
_WORDS = {Status.OK: "correct"}  # the others are the same words
_FIELDS: dict[str, Any] = {
    "timestamp": str, "configuration": dict, "objectives": list, "times": dict, "invalidity": str,
    "correctness": (int, float), "measurements": list,
}  # fmt: skip
_NEEDED = ("configuration", "times", "invalidity", "correctness")
# Parts of the time that one configuration took; the schema's "compilation_time" is Kernel Tuner's "compilation".
_TIMES = {
    "compilation": "compile_seconds", "compilation_time": "compile_seconds", "validation": "check_seconds",
    "framework": "framework_seconds", "benchmark": "benchmark_seconds", "search_algorithm": "search_seconds",
}  # fmt: skip
Configuration = Mapping[str, int | float | str | bool]


@dataclass(frozen=True)
class Result:
    """One configuration: seconds of a call (infinite without a time), its samples, and what trying it took.

    `extra`: other measurements, name -> (value, unit).
    """

    configuration: Configuration
    status: Status = Status.OK
    seconds: float = math.inf
    runtimes: tuple[float, ...] = ()
    compile_seconds: float = 0.0
    check_seconds: float = 0.0
    framework_seconds: float = 0.0
    benchmark_seconds: float = 0.0
    search_seconds: float = 0.0
    timestamp: str = ""
    extra: Mapping[str, tuple[Any, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Document:
    """A file of results; `metadata` is whatever its writer says about them."""

    results: tuple[Result, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)


def _short(seconds: float) -> float:
    """Milliseconds to six digits: more are noise, and do not compress."""
    return float(f"{1e3 * seconds:.6g}")


def to_json(r: Result) -> dict[str, Any]:
    """The T4 form of one result."""
    rows = [{"name": "time", "value": _short(r.seconds), "unit": "ms"}] if math.isfinite(r.seconds) else []
    rows += [{"name": name, "value": value, "unit": unit} for name, (value, unit) in r.extra.items()]
    times: dict[str, Any] = {"compilation_time": _short(r.compile_seconds)}
    for name in ("validation", "framework", "benchmark", "search_algorithm"):
        if seconds := getattr(r, _TIMES[name]):
            times[name] = _short(seconds)
    times["runtimes"] = [_short(s) for s in r.runtimes]
    return {
        "timestamp": r.timestamp, "configuration": dict(r.configuration), "objectives": ["time"], "times": times,
        "invalidity": _WORDS.get(r.status, str(r.status)), "correctness": int(r.status is not Status.CORRECTNESS),
        "measurements": rows,
    }  # fmt: skip


def from_json(row: Any) -> Result:
    """The result of its T4 form. Raises CacheError that names the field that is wrong."""
    if not isinstance(row, dict):
        raise CacheError(f"a result is a JSON object, not {type(row).__name__}")
    for name in _NEEDED:
        if name not in row:
            raise CacheError(f"field {name!r} is missing")
    for name, value in row.items():
        if name not in _FIELDS:
            raise CacheError(f"field {name[:40]!r} is unknown; known are {', '.join(_FIELDS)}")
        if not isinstance(value, _FIELDS[name]):
            raise CacheError(f"{name} is {value!r:.60}, which is of another type")
    if bad := [k for k, v in row["configuration"].items() if not isinstance(v, (int, float, str, bool))]:
        raise CacheError(f"configuration[{bad[0][:40]!r}] is no number and no text")
    word = row["invalidity"]
    status = next((s for s in Status if _WORDS.get(s, str(s)) == word), None)
    if status is None:
        raise CacheError(f"invalidity is {word!r:.40}; it is correct, {', '.join(s for s in Status if s != 'ok')}")
    times: dict[str, float] = {}
    runtimes: tuple[float, ...] = ()
    for name, value in row["times"].items():
        if name == "runtimes":
            if not isinstance(value, list):
                raise CacheError(f"times.runtimes is {value!r:.60}, no list")
            runtimes = tuple(_seconds(v, "times.runtimes", 1e-3) for v in value)
        elif name in _TIMES:
            times[_TIMES[name]] = _seconds(value, f"times.{name}", 1e-3)
        else:
            raise CacheError(f"field 'times.{name[:40]}' is unknown; known are {', '.join((*_TIMES, 'runtimes'))}")
    measured = _measurements(row.get("measurements", []))
    target = next((o for o in row.get("objectives", []) if o in measured), "time")
    seconds = math.inf
    if status is Status.OK:
        if target in measured:
            value, unit = measured[target]
            if unit not in _UNITS:
                raise CacheError(f"{target} is in {unit!r:.20}; known units are {', '.join(filter(None, _UNITS))}")
            seconds = _seconds(value, target, _UNITS[unit])
        elif runtimes:
            seconds = sorted(runtimes)[len(runtimes) // 2]
        else:
            raise CacheError("a correct result has neither the measurement of its objective nor runtimes")
    extra = {k: v for k, v in measured.items() if k != target}
    stamp = row.get("timestamp", "")
    return Result(row["configuration"], status, seconds, runtimes, timestamp=stamp, extra=extra, **times)


def _measurements(rows: Iterable[Any]) -> dict[str, tuple[Any, str]]:
    found: dict[str, tuple[Any, str]] = {}
    for row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("name"), str) or "value" not in row:
            raise CacheError(f"a measurement is {row!r:.60}; it has a name, a value and a unit")
        if unknown := sorted(row.keys() - {"name", "value", "unit"}):
            raise CacheError(f"field 'measurements.{unknown[0][:40]}' is unknown")
        found[row["name"]] = row["value"], str(row.get("unit") or "")
    return found


def _seconds(value: Any, name: str, unit: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e12:
        raise CacheError(f"{name} is {value!r:.40}, no time")
    return float(value) * unit


def write(path: Path, document: Document) -> None:
    """Write a document, compressed where the name ends in .gz or .xz; whole or not at all."""
    rows = ",\n".join(json.dumps(to_json(r), separators=(",", ":"), allow_nan=False) for r in document.results)
    head = f'"metadata":{json.dumps(document.metadata, separators=(",", ":"))},\n' if document.metadata else ""
    data = f'{{"schema_version":"{VERSION}",\n{head}"results":[\n{rows}\n]}}\n'.encode()
    pack: Callable[[bytes], bytes] = {
        ".gz": lambda raw: gzip.compress(raw, mtime=0), ".xz": lambda raw: lzma.compress(raw, preset=9),
    }.get(path.suffix, lambda raw: raw)  # fmt: skip
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(pack(data))
    draft.replace(path)


def read(path: Path) -> Document:
    """The document in a file. Raises CacheError, with the file and the result, for anything that is not one."""
    try:
        return parse(_text(path))
    except (OSError, EOFError, lzma.LZMAError, ValueError) as error:
        raise CacheError(f"{path}: not a file of results, or cut short: {error}") from error
    except CacheError as error:
        raise CacheError(f"{path}: {error}") from None


def _text(path: Path) -> str:
    with path.open("rb") as raw:
        magic = raw.read(6)
    with (gzip.open if magic[:2] == b"\x1f\x8b" else lzma.open if magic == b"\xfd7zXZ\0" else open)(path, "rb") as file:
        data: bytes = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise CacheError(f"more than {MAX_BYTES >> 20} MiB of JSON")
    return data.decode()


def parse(text: str) -> Document:
    """The document of its JSON text. Raises CacheError, and ValueError where it is no JSON."""
    value = json.loads(text)
    if not isinstance(value, dict) or not isinstance(value.get("results"), list):
        raise CacheError('no T4 document: it is a JSON object with "schema_version" and "results"')
    version = value.get("schema_version")
    if not isinstance(version, str) or version.split(".")[:2] != VERSION.split(".")[:2]:
        raise CacheError(f"schema_version is {version!r:.20}; this version of autotune reads {VERSION}")
    if unknown := sorted(value.keys() - {"schema_version", "results", "metadata"}):
        raise CacheError(f"field {unknown[0][:40]!r} is unknown; known are schema_version, metadata, results")
    if not isinstance(value.get("metadata", {}), dict):
        raise CacheError("metadata is no JSON object")
    results = []
    for n, row in enumerate(value["results"]):
        try:
            results.append(from_json(row))
        except CacheError as error:
            raise CacheError(f"result {n}: {error}") from None
    return Document(tuple(results), value.get("metadata", {}))
