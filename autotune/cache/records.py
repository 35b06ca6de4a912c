"""Record: one measurement and everything that its key stands for, in clear. The unit that stores keep and packs carry.

Knows the fields, what makes them valid and their JSON form; must not know where records are kept. The JSON is data for
strangers: reading it trusts nothing, and what is true of one installation only (`checks`, `local`) is not part of it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..devices.records import Measurement, Policy, Status
from ..devices.spec import DeviceSpec
from ..ir.errors import CacheError
from ..ir.program import TensorProgram

SCHEMA = 1
MAX_TEXT, MAX_SAMPLES, MAX_MESSAGE = 1 << 19, 4096, 2000
BROKEN = (Status.CORRECTNESS, Status.RUNTIME)  # such a schedule is never used again under the same key
_DIGEST, _NAME = re.compile(r"[0-9a-f]{32}"), re.compile(r"[\w.:+/ -]{1,120}", re.ASCII)


def plain(text: str) -> str:
    """Short, and without characters that steer a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text[:MAX_MESSAGE])


def canonical(value: Any) -> str:
    """The one JSON text of a value, of which its digest is taken."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def family(program: TensorProgram) -> tuple[str, tuple[int, ...]]:
    """A digest of the program without its extents and constants, and the extents of all axes of all computes in order.

    Programs of one family differ in shape only, so that their schedules can be tried on each other.
    """
    extents: list[int] = []

    def strip(value: Any, name: str = "") -> Any:
        if name in ("axes", "reduce_axes"):
            extents.extend(extent for _, extent in value)
        if name in ("shape", "axes", "reduce_axes"):
            return len(value)
        if isinstance(value, dict):
            return {k: strip(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return ["const", value[2]] if value[:1] == ["const"] else [strip(v) for v in value]
        return value

    return digest(canonical(strip(program.canonical))), tuple(extents)


@dataclass(frozen=True, slots=True)
class Key:
    """What a measurement is of, but for the schedule. Digests identify, the other fields say the same in clear."""

    program: str
    device: str  # "cpu:znver4"
    device_digest: str
    toolchain: str
    policy: str
    family: str = ""
    extents: tuple[int, ...] = ()
    program_json: str = field(default="", repr=False)
    device_json: str = field(default="", repr=False)
    versions: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @staticmethod
    def of(program: TensorProgram, device: DeviceSpec, versions: Mapping[str, str], policy: Policy) -> Key:
        """The key of `program` here. `versions`: every component whose change may change the machine code."""
        name, extents = family(program)
        rows = tuple(sorted(versions.items()))
        return Key(program.digest, device.id, device.digest, digest(canonical(rows)), policy.id, name, extents,
                   canonical(program.canonical), device.text, rows)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Record:
    """A schedule measured under a key, or the reason why it could not be (`measurement.status`).

    `place`: rank in a paired run-off, 0 for the one that it chose. `created`: Unix time. `checks`: what was proved of
    the schedule on this installation. `local`: measured here, not imported.
    """

    key: Key
    schedule: str
    schedule_json: str = field(repr=False)
    measurement: Measurement
    created: float
    place: int | None = None
    checks: tuple[tuple[str, str], ...] = ()
    local: bool = True

    @property
    def ok(self) -> bool:
        return self.measurement.ok

    @property
    def rank(self) -> tuple[Any, ...]:
        """Sorts records of one key best first: own before foreign, the choice of the last run-off, then by time."""
        m, chosen = self.measurement, self.place == 0
        return (not m.ok, not self.local, not chosen, -self.created if chosen else 0.0, m.noisy, m.seconds)

    @property
    def id(self) -> str:
        """Digest of all that is shared: two stores that hold the same measurement agree on it."""
        return digest("\n".join((canonical(facts(self)), *texts(self))))


_KEY_TEXTS = ("program", "device", "device_digest", "toolchain", "policy", "family")
_TIMES = ("seconds", "minimum", "mad")
FACTS: dict[str, tuple[type, ...]] = dict.fromkeys((*_KEY_TEXTS, "schedule", "status", "message"), (str,)) | {
    "extents": (list,), "versions": (dict,), "samples": (list,), "rounds": (int,), "noisy": (bool,),
    "place": (int, type(None)), "created": (int, float), **dict.fromkeys(_TIMES, (int, float, type(None))),
}  # fmt: skip
_CLEAR = {"program_json": (dict,), "schedule_json": (list,), "device_json": (dict, type(None))}
_FIELDS: dict[str, tuple[type, ...]] = FACTS | _CLEAR | {"schema": (int,)}


def facts(record: Record) -> dict[str, Any]:
    """All that is shared, but for the long texts, by the names in FACTS; times that there are not are None."""
    key, m = record.key, record.measurement
    times = {n: t if math.isfinite(t := getattr(m, n)) else None for n in _TIMES}
    return {name: getattr(key, name) for name in _KEY_TEXTS} | times | {
        "schedule": record.schedule, "extents": list(key.extents), "versions": dict(key.versions),
        "status": str(m.status), "samples": list(m.samples), "rounds": m.rounds, "noisy": m.noisy,
        "message": plain(m.message), "place": record.place, "created": record.created,
    }  # fmt: skip


def build(facts: Mapping[str, Any], texts: Sequence[str], checks: Iterable[Sequence[str]], local: bool) -> Record:
    """The record of its facts; `texts`: program, schedule and device as JSON."""
    clear: dict[str, Any] = {name: facts[name] for name in _KEY_TEXTS}
    versions = tuple(sorted(facts["versions"].items()))
    key = Key(**clear, extents=tuple(facts["extents"]), program_json=texts[0], device_json=texts[2], versions=versions)
    seconds, minimum, mad = (math.inf if facts[n] is None else float(facts[n]) for n in _TIMES)
    measured = Measurement(seconds, minimum, mad, tuple(facts["samples"]), facts["rounds"], bool(facts["noisy"]),
                           Status(facts["status"]), plain(facts["message"]))  # fmt: skip
    proofs = tuple((name, value) for name, value in checks)
    return Record(key, facts["schedule"], texts[1], measured, float(facts["created"]), facts["place"], proofs, local)


def texts(record: Record) -> tuple[str, str, str]:
    return record.key.program_json, record.schedule_json, record.key.device_json


def to_json(record: Record) -> dict[str, Any]:
    """The shareable form: without `checks` and `local`."""
    clear = {n: json.loads(t) if t else None for n, t in zip(_CLEAR, texts(record), strict=True)}
    return {"schema": SCHEMA} | facts(record) | clear


def from_json(value: Any) -> Record:
    """The record that `to_json` wrote, valid but foreign. Raises CacheError that names the field that is wrong."""
    if not isinstance(value, dict):
        raise CacheError(f"a record is a JSON object, not {type(value).__name__}")
    if isinstance(schema := value.get("schema"), int) and schema > SCHEMA:
        raise CacheError(f"schema {schema} is newer than {SCHEMA}, the newest known here; upgrade autotune-kernels")
    if wrong := sorted(map(str, _FIELDS.keys() ^ value.keys())):
        raise CacheError(f"field {wrong[0][:40]!r} is {'missing' if wrong[0] in _FIELDS else 'unknown'}")
    for name, kinds in _FIELDS.items():
        if not isinstance(value[name], kinds) or (isinstance(value[name], bool) and bool not in kinds):
            raise CacheError(f"{name} is {value[name]!r:.60}, expected {' or '.join(k.__name__ for k in kinds)}")
    if value["status"] not in list(Status):
        raise CacheError(f"status is {value['status']!r:.40}, expected one of {', '.join(Status)}")
    record = build(value, [canonical(value[n]) if value[n] is not None else "" for n in _CLEAR], (), False)
    validate(record)
    return record


def validate(record: Record) -> None:
    """Raise CacheError unless the fields are in range, and digests are those of the text beside them."""
    key, m = record.key, record.measurement
    versions = canonical(key.versions) if key.versions else ""
    for name, value, text in (
        ("program", key.program, key.program_json), ("schedule", record.schedule, record.schedule_json),
        ("toolchain", key.toolchain, versions), ("device", key.device_digest, ""),
        ("family", key.family or key.program, ""),
    ):  # fmt: skip
        if not _DIGEST.fullmatch(value) or (text and digest(text) != value):
            raise CacheError(f"{name} is {value!r:.60}, not the digest (32 hex digits) of the {name} in clear")
    for name, text in (("device", key.device), ("policy", key.policy), *key.versions):
        if not isinstance(text, str) or not _NAME.fullmatch(text) or not _NAME.fullmatch(name):
            raise CacheError(f"{name!r:.60} is {text!r:.60}, expected a short plain name")
    times = (*m.samples, *((m.seconds, m.minimum) if m.ok else ()))
    for okay, problem in (
        (len(m.samples) <= MAX_SAMPLES, f"more than {MAX_SAMPLES} samples"),
        (all(isinstance(t, (int, float)) and 0 < t < 1e9 for t in times), "a time is missing, or not from 0 to 1e9"),
        (all(type(e) is int and 0 <= e < 1 << 63 for e in key.extents), "an extent is not an integer from 0 to 2^63"),
        (0 <= record.created < 1e11, f"created is {record.created}, not a Unix time"),
        (0 <= (record.place or 0) < 1 << 31 and 0 <= m.rounds < 1 << 31, "place or rounds are not from 0 to 2^31"),
        (len(key.extents) <= 1024, "extents are too long"),
        (max(map(len, texts(record))) <= MAX_TEXT, f"program, schedule or device is over {MAX_TEXT} bytes of JSON"),
    ):
        if not okay:
            raise CacheError(problem)
