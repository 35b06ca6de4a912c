"""Records: their JSON is complete, and reading it refuses whatever is not exactly a record."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from autotune.cache.records import MAX_MESSAGE, SCHEMA, Record, canonical, family, from_json, to_json, validate
from autotune.devices.records import Measurement
from autotune.ir.errors import CacheError

from .samples import BIG, key, matmul, record


def foreign(made: Record) -> Record:
    return replace(made, local=False, checks=())


@pytest.mark.parametrize(
    "made",
    [
        record(), record(place=0, created=1.7e9 + 0.123), record(status="correctness", message="off by 3"),
        record(status="timeout"), record(samples=(1e-7, 3.3e-7)), record(replace(key(), device_json="", versions=())),
    ],
)  # fmt: skip
def test_round_trip(made: Record) -> None:
    there = json.loads(canonical(to_json(made)))
    assert from_json(there) == foreign(made)
    assert from_json(there).id == made.id


def test_only_the_shareable_leaves() -> None:
    made = record(checks=(("equivalent", "two seeds"),))
    assert not {"checks", "local"} & to_json(made).keys()
    assert made.id == record().id


def test_message_is_made_plain_and_short() -> None:
    made = record(status="compile", message="\x1b[31mred\x07\n" + BIG)
    back = from_json(to_json(made))
    assert back.measurement.message.startswith(" [31mred \n") and len(back.measurement.message) == MAX_MESSAGE
    assert back.id == made.id


def test_digests_do_not_depend_on_names_and_family_not_on_shape() -> None:
    assert matmul(4, 5, 6).digest == matmul(4, 5, 6, "xyz").digest
    (one, small), (two, large) = family(matmul(4, 5, 6)), family(matmul(400, 500, 600, "xyz"))
    assert one == two and small == (4, 5, 6) and large == (400, 500, 600)


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"schema": SCHEMA + 1}, "newer"),
    ({"program": "0" * 32}, "program is"),
    ({"schedule": 7}, "expected str"),
    ({"schedule": "../../etc/passwd"}, "schedule is"),
    ({"schedule_json": [{"step": "other"}]}, "not the digest"),
    ({"program_json": {}}, "not the digest"),
    ({"versions": {"llvm": "1"}}, "toolchain is"),
    ({"versions": {"llvm": 1}}, "toolchain is"),
    ({"device": "cpu\x1b[2J"}, "short plain name"),
    ({"device": "c" * 500}, "short plain name"),
    ({"status": "fine"}, "expected one of ok"),
    ({"seconds": None}, "missing"),
    ({"seconds": -1.0}, "not from 0"),
    ({"seconds": "fast"}, "expected int"),
    ({"seconds": True}, "expected int"),
    ({"samples": [1e-5, "x"]}, "not from 0"),
    ({"rounds": 1 << 70}, "rounds"),
    ({"family": "\ud800"}, "family is"),
    ({"samples": [1e-5] * 5000}, "more than"),
    ({"extents": [64, -1, 64]}, "extent"),
    ({"extents": [64, 1.5, 64]}, "extent"),
    ({"extents": [1] * 2000}, "too long"),
    ({"created": 1e12}, "Unix time"),
    ({"created": float("nan")}, "Unix time"),
    ({"place": -1}, "place"),
    ({"noisy": 1}, "expected bool"),
    ({"device_json": {"name": "x" * (1 << 20)}}, "bytes of JSON"),
    ({"extra": 1}, "'extra' is unknown"),
]


@pytest.mark.parametrize(("change", "why"), CHANGES, ids=[f"{n}-{next(iter(c))}" for n, (c, _) in enumerate(CHANGES)])
def test_refusals_name_the_field(change: dict[str, Any], why: str) -> None:
    with pytest.raises(CacheError, match=why):
        from_json(to_json(record()) | change)


@pytest.mark.parametrize("name", sorted(to_json(record())))
def test_every_field_is_required(name: str) -> None:
    value = to_json(record())
    del value[name]
    with pytest.raises(CacheError, match=f"'{name}' is missing"):
        from_json(value)


@pytest.mark.parametrize("value", [None, 3, "x", [], [1]])
def test_other_json_is_no_record(value: Any) -> None:
    with pytest.raises(CacheError, match="JSON object"):
        from_json(value)


def test_local_mistakes_are_found_before_they_are_stored() -> None:
    good = record()
    validate(good)
    for bad in (
        replace(good, key=replace(good.key, program_json='{"inputs": []}')),
        replace(good, measurement=Measurement()),
        replace(good, measurement=replace(good.measurement, minimum=math.nan)),
        replace(good, created=-1.0),
    ):
        with pytest.raises(CacheError):
            validate(bad)
