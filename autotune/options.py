"""The one frozen `Options`, and where its values come from: argument > context > environment > file > default.

The only module that reads the environment. It knows names, types and allowed values; it must not know what an option
does: devices, stores and sessions are given the resolved values.
"""

from __future__ import annotations

import math
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .ir.errors import UsageError

STRATEGIES = ("default", "random", "greedy", "local", "evolution", "tpe", "cma")
_CACHE = ("readwrite", "readonly", "off")
_FLAGS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_TOOL = re.compile(r"""^\s*\[?\s*["']?tool["']?\s*(\.\s*["']?autotune\b|\])""", re.MULTILINE)
_UNITS = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0}


@dataclass(frozen=True, slots=True)
class Options:
    """All that a user may set. `threads` None: affinity mask and cgroup quota. `budget`: seconds; None: caller's.
    `strategy` says what `tune` tries next; `study`: the URL of a storage that Optuna's strategies share."""

    device: str = "cpu"
    threads: int | None = None
    tune: str = "cached"
    budget: float | None = None
    trials: int | None = None
    cache: str = "readwrite"
    cache_dir: str | None = None
    seed: int = 0
    frozen: bool = False
    debug: int = 0
    graph: str | None = None
    name: str | None = None
    no_color: bool = False
    strategy: str = "default"
    study: str | None = None

    def directory(self) -> Path | None:
        """The private cache directory, made if need be; None, after one warning, where there can be none."""
        path = Path(self.cache_dir) if self.cache_dir else user_directory("cache")
        return None if self.cache == "off" else _usable(path, self.cache == "readonly")

    def store(self) -> str | None:
        """Path or URL of the store of measurements; None: in memory only."""
        if self.cache in _CACHE:
            return str(home / "records.db") if (home := self.directory()) else None
        return self.cache if "://" in self.cache or Path(self.cache).suffix else str(Path(self.cache, "records.db"))


# option -> (environment variable, kind, what is allowed where the kind does not say it)
_TABLE: dict[str, tuple[str, Any, str]] = {
    "device": ("AUTOTUNE_DEVICE", "text", "a device such as cpu, cpu:znver4 or opencl:0"),
    "threads": ("AUTOTUNE_NUM_THREADS", range(1, 1 << 63), "an integer >= 1"),
    "tune": ("AUTOTUNE_TUNE", ("off", "cached", "first-call", "background", "auto"), ""),
    "budget": ("AUTOTUNE_BUDGET", "time", "a time > 0 such as 2s, 500ms, 1min or plain seconds"),
    "trials": ("", range(1, 1 << 63), "an integer >= 1"),
    "cache": ("AUTOTUNE_CACHE", "cache", " | ".join(_CACHE) + " | a path such as ./x or x.db | a URL"),
    "cache_dir": ("AUTOTUNE_CACHE_DIR", "path", "a path"),
    "seed": ("AUTOTUNE_SEED", range(1 << 63), "an integer >= 0"),
    "frozen": ("AUTOTUNE_FROZEN", "flag", " | ".join(_FLAGS)),
    "debug": ("AUTOTUNE_DEBUG", range(6), "an integer from 0 to 5"),
    "graph": ("AUTOTUNE_GRAPH", "path", "a path such as graph.svg"),
    "name": ("", "text", "a name"),
    "no_color": ("", "flag", " | ".join(_FLAGS)),
    "strategy": ("", STRATEGIES, ""),
    "study": ("", "text", "a URL such as sqlite:///study.db"),
}
_VARIABLES = {variable: option for option, (variable, _, _) in _TABLE.items() if variable}
CONTEXT: ContextVar[Mapping[str, Any]] = ContextVar("autotune", default=MappingProxyType({}))


def _convert(kind: Any, value: Any) -> Any:
    """`value` as the kind has it; a ValueError, TypeError, KeyError or AttributeError where it is not of that kind."""
    if isinstance(kind, range):
        return kind[kind.index(int(value) if isinstance(value, str) else value.__index__())]
    if isinstance(kind, tuple):
        return kind[kind.index(value)]
    if kind == "flag":
        return _FLAGS[str(value).lower()]
    if kind == "time":
        match = re.fullmatch(r"([\d.]+(?:e[+-]?\d+)?)\s*([a-z]*)", str(value).strip().lower())
        result: Any = float(match[1]) * _UNITS[match[2]] if match else 0
        valid = 0 < result < math.inf
    else:
        result = value.strip() if kind == "text" else os.path.expanduser(os.fspath(value))
        valid = bool(result) and "\0" not in result
        if kind == "cache" and isinstance(value, str) and not {os.sep, ".", "~"} & set(value):
            valid = value in _CACHE  # any other bare word is a typing error rather than a file
    if not valid:
        raise ValueError
    return result


def _parse(option: str, value: Any, where: str) -> Any:
    _, kind, allowed = _TABLE[option] if where != "AUTOTUNE_CACHE" else ("", _CACHE, "")  # its paths: ..._CACHE_DIR
    try:
        return _convert(kind, value)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UsageError(f"{where}={value!r}: {option} must be {allowed or ' | '.join(kind)}") from None


def _given(values: Mapping[str, Any], function: str) -> dict[str, Any]:
    """Parsed values of the options that are not None. A wrong name is a TypeError, as for any keyword argument."""
    if unknown := [name for name in values if name not in _TABLE]:
        raise TypeError(f"{function}() got an unexpected option {unknown[0]!r}; options are {', '.join(_TABLE)}")
    return {name: _parse(name, value, name) for name, value in values.items() if value is not None}


@lru_cache(maxsize=256)
def _warn(message: str) -> None:  # each once a process, although its source is looked at again and again
    warnings.warn(message, RuntimeWarning, stacklevel=4)


def _environment() -> dict[str, Any]:
    found: dict[str, Any] = {"no_color": True} if os.environ.get("NO_COLOR") else {}
    for variable in [name for name in os.environ if name.startswith("AUTOTUNE_")]:
        if variable not in _VARIABLES:
            _warn(f"{variable} is no variable of autotune and is ignored; known are {', '.join(_VARIABLES)}")
        elif text := os.environ[variable].strip():
            found[_VARIABLES[variable]] = _parse(_VARIABLES[variable], text, variable)
    return found


def user_directory(kind: str) -> Path | None:
    """The user's "cache" or "config" directory for autotune, not made; None where the user has no home."""
    if sys.platform in ("win32", "darwin"):
        import platformdirs

        return Path(getattr(platformdirs, f"user_{kind}_dir")("autotune", appauthor=False))
    base = os.environ.get(f"XDG_{kind.upper()}_HOME", "")
    if not os.path.isabs(base):  # the same rule as platformdirs, without its 20 ms of imports
        base = os.path.expanduser(f"~/.{kind}") if os.environ.get("HOME", "/") else ""
    return Path(base, "autotune") if os.path.isabs(base) else None


@lru_cache(maxsize=16)
def _usable(path: Path | None, readonly: bool) -> Path | None:
    from .cache.objects import private_directory

    problem = "" if readonly else private_directory(path, False) if path else "there is no home directory"
    if problem:
        _warn(f"nothing is kept on disk: {problem}; set AUTOTUNE_CACHE_DIR to a place of yours, or AUTOTUNE_CACHE=off")
    return path if path and not problem and path.is_dir() else None


@lru_cache(maxsize=16)
def _files(folder: Path, config: Path | None) -> Mapping[str, Any]:
    """Options of the nearest pyproject.toml with a [tool.autotune] table, over those of the user's config.toml."""
    projects = (_file(place / "pyproject.toml", ("tool", "autotune")) for place in (folder, *folder.parents))
    return (_file(config / "config.toml", ()) if config else {}) | next(filter(None, projects), {})


def _file(path: Path, tables: tuple[str, ...]) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8") if os.access(path, os.R_OK) else ""
        if not text or (tables and not _TOOL.search(text)):
            return {}  # without the import of a parser
        import tomllib

        items: Any = tomllib.loads(text)
        for name in tables:
            items = items.get(name, {})
        for name in [name for name in items if name not in _TABLE]:
            _warn(f"{path}: {name} is no option of autotune and is ignored; known are {', '.join(_TABLE)}")
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UsageError(f"{path}: cannot read {'.'.join(tables) or 'the options'}: {error}") from None
    found = {k: _parse(k, v, f"{path}: {k}") for k, v in items.items() if k in _TABLE}
    return found | {k: str(path.parent / found[k]) for k in ("cache_dir", "graph") if k in found}


def resolve(**arguments: Any) -> Options:
    """The options in force: `arguments` (None: not given) over context, environment and files (read once a process).

    Raises UsageError, naming source, value and what is allowed, for a wrong value.
    """
    values = _given(arguments, "resolve")
    try:
        folder = Path.cwd()
    except FileNotFoundError:  # it was deleted under us
        folder = Path(os.sep)
    return Options(**{**_files(folder, user_directory("config")), **_environment(), **CONTEXT.get(), **values})


@contextmanager
def context(**values: Any) -> Iterator[None]:
    """Options for the calls inside the block, in this thread or asyncio task only; blocks nest."""
    token = CONTEXT.set({**CONTEXT.get(), **_given(values, "context")})
    try:
        yield
    finally:
        CONTEXT.reset(token)
