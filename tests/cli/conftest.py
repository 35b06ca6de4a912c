"""The command line in this process, with an empty store of its own and a module of functions beside it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from autotune.cli.main import main

QUICK = ("--trials", "2", "--threads", "1")
FUNCTIONS = '''
import numpy as np

def dense(x, w, b):
    return np.maximum(x @ w + b, 0)

def scaled(x, factor=2):
    return x * factor

def both(x):
    return x + 1, x.sum(axis=0)

def branch(x):
    return x if x.sum() > 0 else -x

def boom(x):
    raise RuntimeError("first line\\nsecond line")

def nothing(x):
    return 3

number = 5
'''


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code and its two streams."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Done]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with the module `functions_here`; the store is in its folder `store`."""
    for name in ("AUTOTUNE_FROZEN", "AUTOTUNE_CACHE", "AUTOTUNE_DEBUG", "AUTOTUNE_TUNE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AUTOTUNE_CACHE_DIR", str(tmp_path / "store"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "functions_here.py").write_text(FUNCTIONS)
    yield tmp_path
    sys.modules.pop("functions_here", None)


@pytest.fixture
def run(place: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> Done:
        code = main(arguments)
        return Done(code, *capfd.readouterr())

    return call
