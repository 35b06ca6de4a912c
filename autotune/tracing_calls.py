"""Which calls of the user's function recorded which Computes: names for people, and no part of a program's meaning.

Knows nothing of what a call does, nor of tracers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

Operation = tuple[int, str]  # which call of the trace, and its name
_NONE: Operation = (0, "")


class Calls:
    """The calls of one trace. A call that is made inside of another one is part of that one."""

    def __init__(self) -> None:
        self._by_compute: dict[str, Operation] = {}
        self._now, self._count = _NONE, 0

    @contextmanager
    def call(self, name: str) -> Iterator[None]:
        """What is recorded meanwhile belongs to a call of this name, unless one is under way already."""
        if self._now is not _NONE:
            yield
            return
        self._count += 1
        self._now = self._count, name
        try:
            yield
        finally:
            self._now = _NONE

    def record(self, compute: str) -> None:
        """A Compute has been recorded now."""
        self._by_compute[compute] = self._now

    def operations(self, parts: Mapping[str, Collection[str]]) -> dict[str, tuple[Operation, ...]]:
        """By the keys of `parts`, the calls that recorded these Computes, in order."""
        return {name: tuple(sorted({self._by_compute[p] for p in these} - {_NONE})) for name, these in parts.items()}
