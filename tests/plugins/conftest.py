"""Each test of the torch backend begins and ends without compiled graphs, with the same random numbers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

# Options of a compilation without a search.
UNTUNED = {"tune": "off", "threads": 1}


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    torch._dynamo.reset()
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()
