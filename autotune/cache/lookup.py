"""The look-up chain: exact -> same device, other toolchain -> same arch -> nearest shape -> nothing (a model's turn).

Knows which stored schedule to try first for a key, and says why; must not know how a schedule is proved or run. Only an
own record under the very key is an answer ("cache"); all else is a hypothesis, to be proved before use ("transfer").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from .records import Key, Record
from .store import Store


@dataclass(frozen=True, slots=True)
class Found:
    """A record to use. `source`: "cache" | "transfer"; `reason` says how its key relates to the one asked for."""

    record: Record
    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Miss:
    """Nothing to use. `differs`: the key fields in which the closest record is another one."""

    reason: str
    closest: Record | None = None
    differs: tuple[str, ...] = ()


def find(store: Store, key: Key) -> Found | Miss:
    """The first of `candidates`, else why there is none. One query where the key itself is stored."""
    return next(candidates(store, key), None) or _miss(store, key)


def candidates(store: Store, key: Key, limit: int = 4) -> Iterator[Found]:
    """What to try, best first: no schedule twice, none that failed under the key, at most `limit` from other shapes."""
    same = {"program": key.program, "device": key.device, "policy": key.policy}
    here, exact = {"device_digest": key.device_digest}, {"toolchain": key.toolchain}
    if record := store.best(**same, **here, **exact):
        yield _found(record, key)
    tried = {r.schedule for r in store.records(program=key.program, **here, **exact) if not r.ok}
    tried |= {record.schedule} if record else set()
    for where in (here, {}):
        if record := store.best(tried, **same, **where):
            tried.add(record.schedule)
            yield _found(record, key)
    near = store.nearest(key.family, key.extents, key.device, key.policy, limit + 1, tried)
    for record in [r for r in near if r.key.program != key.program][:limit]:
        yield Found(record, "transfer", f"nearest shape: {record.key.extents} for {key.extents}")


def _found(record: Record, key: Key) -> Found:
    fields = _differs(record.key, key)
    if not fields and record.local:
        return Found(record, "cache", "exact")
    what = "same arch, other machine" if "device_digest" in fields else "same device, other toolchain"
    reason = f"{what}: {_changes(record.key, key)}" if fields else "exact, but measured elsewhere"
    return Found(record, "transfer", reason)


def _differs(old: Key, new: Key) -> tuple[str, ...]:
    fields = ("program", "policy", "device", "device_digest", "toolchain")
    return tuple(name for name in fields if getattr(old, name) != getattr(new, name))


def _changes(old: Key, new: Key) -> str:
    """Each differing field, `stored -> asked for`; a toolchain by its components."""
    rows = [(name, getattr(old, name), getattr(new, name)) for name in _differs(old, new)]
    if old.versions and new.versions:
        was, now = dict(old.versions), dict(new.versions)
        rows = [row for row in rows if row[0] != "toolchain"] + [(n, was.get(n), now.get(n)) for n in sorted(was | now)]
    return ", ".join(f"{name} {a} -> {b}" for name, a, b in rows if a != b)


def _miss(store: Store, key: Key) -> Miss:
    rows = [*store.records(program=key.program)] or [*store.records(family=key.family)]
    if not rows:
        return Miss("nothing is stored for this program in any shape")
    closest = min(rows, key=lambda r: (len(_differs(r.key, key)), not r.ok, r.id))
    if fields := _differs(closest.key, key):
        return Miss(f"the closest record differs in {', '.join(fields)}: {_changes(closest.key, key)}", closest, fields)
    counts = Counter(str(r.measurement.status) for r in rows if not _differs(r.key, key))
    return Miss("only failures are stored: " + ", ".join(f"{n} {word}" for word, n in counts.items()), closest)
