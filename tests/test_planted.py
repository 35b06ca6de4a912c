"""Planted bugs: no nest with one passes the proofs, and hardly a text the emulator. `pytest -s` prints them."""

from __future__ import annotations

import pytest

from autotune.hostrun import compiler
from autotune.ir.errors import DeviceError

from .planted import SUBJECTS, summary, table, wrong

try:
    compiler()
except DeviceError as error:
    pytest.skip(str(error), allow_module_level=True)


def test_planted_bugs_show() -> None:
    rows = [row for name, count in SUBJECTS.items() for row in table(name, count)]
    print("\n" + "\n".join(map(str, rows)))
    print(summary(rows))
    assert len(rows) >= 40
    assert not wrong(rows), wrong(rows)
