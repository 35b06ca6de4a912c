"""What every step is: a frozen record that rewrites a Nest, its registry, its JSON, and the tree edits that steps
share.

A step names a *stage* (a Compute, or a cache that another step made) and loops by name. A name denotes every loop of
that name which contains a statement of the stage: after a cut the same name lives in main and tail bodies, and one
step treats all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from ..affine import Affine
from ..bounds import prove_nonnegative, simplify
from ..errors import ScheduleError
from ..expr import Expr, Load, transform
from ..nest import Alloc, Block, Guard, Leaf, Loop, Nest, Reduce, Stmt, Store, leaves, tags, walk, with_body

Path = tuple[Block, ...]
REGISTRY: dict[str, type[Step]] = {}


@dataclasses.dataclass(frozen=True)
class Step:
    """One rewrite of a nest. Subclasses declare `kind`, their fields and `apply`."""

    stage: str
    kind: ClassVar[str] = ""

    def __init_subclass__(cls, kind: str = "", **extra: Any) -> None:
        super().__init_subclass__(**extra)
        if kind:
            cls.kind = kind
            REGISTRY[kind] = cls

    def apply(self, nest: Nest) -> Nest:
        raise NotImplementedError

    def fail(self, message: str, reason: str) -> ScheduleError:
        return ScheduleError(f"{self}: {message}", reason)

    def __str__(self) -> str:
        shown = [repr(getattr(self, f.name)) for f in dataclasses.fields(self) if getattr(self, f.name) != f.default]
        return f"{self.kind}({', '.join(shown)})"

    def to_json(self) -> dict[str, Any]:
        """Without fields at their defaults: one that is added later changes no digest."""
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if getattr(self, f.name) != f.default}
        return {"step": self.kind, **{name: _plain(value) for name, value in given.items()}}


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value


def step_from_json(value: Mapping[str, Any]) -> Step:
    """The step that `to_json` wrote. Raises ScheduleError for an unknown kind, field or field type."""
    kind = value.get("step") if isinstance(value, Mapping) else None
    cls = REGISTRY.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise ScheduleError(f"unknown step {kind!r}; known steps: {', '.join(sorted(REGISTRY))}", "unknown-step")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    given = {k: _frozen(v) for k, v in value.items() if k != "step"}
    if unknown := given.keys() - fields.keys():
        raise ScheduleError(f"{kind}: unknown field {sorted(unknown)[0]!r}; it has {', '.join(fields)}", "unknown-step")
    missing = [n for n, f in fields.items() if n not in given and f.default is dataclasses.MISSING]
    if missing:
        raise ScheduleError(f"{kind}: field {missing[0]!r} is missing", "unknown-step")
    for name, item in given.items():
        if not _matches(item, str(fields[name].type)):
            raise ScheduleError(f"{kind}: field {name!r} must be {fields[name].type}, got {item!r}", "unknown-step")
    return cls(**given)


def _matches(value: Any, annotation: str) -> bool:
    """Whether a JSON value has the type of a step field: str, int, bool, or a tuple of these or of (str | int, int)
    pairs."""
    if annotation in ("str", "int", "bool"):
        return type(value).__name__ == annotation
    if not isinstance(value, tuple):
        return False
    inner = annotation.removeprefix("tuple[").removesuffix(", ...]")
    if not inner.startswith("tuple["):
        return all(type(v).__name__ == inner for v in value)
    kinds = inner.removeprefix("tuple[").removesuffix("]").split(", ")
    return all(
        isinstance(v, tuple) and len(v) == len(kinds) and all(type(a).__name__ == k for a, k in zip(v, kinds))
        for v in value
    )


# ---- tree edits -----------------------------------------------------------------------------------------------------


def enclosing(path: Path) -> tuple[tuple[Loop, ...], tuple[Affine, ...]]:
    """The loops and the guard conditions of a path: the context in which bounds are proved."""
    loops = tuple(b for b in path if isinstance(b, Loop))
    guards = tuple(c for b in path if isinstance(b, Guard) for c in b.conditions)
    return loops, guards


def rewrite_loops(step: Step, nest: Nest, name: str, fn: Callable[[Loop, Path], tuple[Stmt, ...]]) -> Nest:
    """Replace every loop `name` of the step's stage by fn(loop, path); refuse if there is none."""
    hits = 0

    def visit(body: tuple[Stmt, ...], path: Path) -> tuple[Stmt, ...]:
        nonlocal hits
        out: list[Stmt] = []
        for stmt in body:
            if isinstance(stmt, Loop) and stmt.name == name and step.stage in tags(stmt):
                hits += 1
                out.extend(fn(stmt, path))
            elif isinstance(stmt, (Loop, Alloc, Guard)):
                out.append(with_body(stmt, visit(stmt.body, (*path, stmt))))
            else:
                out.append(stmt)
        return tuple(out)

    body = visit(nest.body, ())
    if not hits:
        raise step.fail(
            f"stage {step.stage} has no loop {name!r}; it has {_known_loops(nest, step.stage)}", "no-such-loop"
        )
    return Nest(nest.buffers, body)


def _known_loops(nest: Nest, stage: str) -> str:
    names = {s.name: None for s, _ in walk(nest.body) if isinstance(s, Loop) and stage in tags(s)}
    if names:
        return ", ".join(names)
    stages = {leaf.tag: None for leaf in leaves(nest.body)}
    return f"nothing: the stages are {', '.join(stages)}"


def perfect_band(loop: Loop) -> tuple[tuple[Loop, ...], tuple[Stmt, ...]]:
    """The loop and all loops perfectly nested in it, outermost first, and the innermost body."""
    band = [loop]
    while len(band[-1].body) == 1 and isinstance(band[-1].body[0], Loop):
        band.append(band[-1].body[0])
    return tuple(band), band[-1].body


def prune_terms(terms: tuple[Affine, ...], loops: tuple[Loop, ...], guards: tuple[Affine, ...]) -> tuple[Affine, ...]:
    """Drop terms of a minimum that another term never exceeds."""
    kept = list(dict.fromkeys(terms))
    for term in list(kept):
        if any(o is not term and o in kept and prove_nonnegative(term - o, loops, guards) for o in kept):
            kept.remove(term)
    return tuple(kept)


def final_stores(nest: Nest, stage: str) -> list[tuple[Store | Reduce, Path]]:
    """The statements that write the stage's own buffer, with their paths."""
    return [
        (s, p) for s, p in walk(nest.body) if isinstance(s, (Store, Reduce)) and s.tag == stage and s.buffer == stage
    ]


def simplified(leaf: Leaf, loops: Sequence[Loop]) -> Leaf:
    """The leaf with floor divisions and remainders resolved where they are constant inside these loops."""

    def resolve(node: Expr) -> Expr | None:
        if isinstance(node, Load) and not all(a.is_linear for a in node.index):
            return Load(node.buffer, tuple(simplify(a, loops) for a in node.index), node.dtype)
        return None

    index = tuple(a if a.is_linear else simplify(a, loops) for a in leaf.index)
    if isinstance(leaf, (Store, Reduce)):
        return dataclasses.replace(leaf, index=index, value=transform(leaf.value, resolve))
    return dataclasses.replace(leaf, index=index)


def is_leaf(stmt: Stmt) -> bool:
    return not isinstance(stmt, (Loop, Alloc, Guard))


__all__ = [
    "REGISTRY", "Leaf", "Path", "Step", "enclosing", "final_stores", "is_leaf", "perfect_band", "prune_terms",
    "rewrite_loops", "simplified", "step_from_json",
]  # fmt: skip
