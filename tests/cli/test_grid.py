"""Words to cases: ranges with their end, lists, tuples as values, a user's function and its brackets, files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autotune.cli.grid import MAX_CASES, Case, cases, read, values
from autotune.ir.errors import SignatureError, UsageError
from autotune.ops import OPS


@pytest.mark.parametrize(
    ("text", "found"),
    [("7", ["7"]), ("64,512", ["64", "512"]), ("64:256:64", ["64", "128", "192", "256"]), ("1:4", ["1", "2", "3", "4"]),
     ("0:10:4", ["0", "4", "8"]), ("8:2:-3", ["8", "5", "2"]), ("1,4:6", ["1", "4", "5", "6"]), ("-1", ["-1"]),
     ("relu(a*b+c),maximum(a,b)", ["relu(a*b+c)", "maximum(a,b)"])],
)  # fmt: skip
def test_values(text: str, found: list[str]) -> None:
    assert values(text) == found


@pytest.mark.parametrize(
    ("text", "found"), [("0,2", ["0,2"]), ("(0,2),(1)", ["(0,2)", "(1)"]), ("1", ["1"]), ("0,1,2", ["0,1,2"])]
)
def test_a_tuple_is_one_value(text: str, found: list[str]) -> None:
    assert values(text, OPS["reduce"].params["axes"][1]) == found


@pytest.mark.parametrize("text", ["64:8:8", "1:2:0", "8:64:-8", "1,,2", "", f"0:{MAX_CASES}"])
def test_values_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        values(text)


def test_every_combination_the_last_word_fastest() -> None:
    found = cases("gemm", ["m=1,2", "n=8", "k=4:8:4"])
    assert [dict(c.params) for c in found] == [dict(m=m, n=8, k=k) for m in (1, 2) for k in (4, 8)]
    assert [str(c) for c in found][:1] == ["gemm m=1 n=8 k=4"]
    fn, specs, kwargs = found[0].make()
    assert [s.shape for s in specs] == [(1, 4), (4, 8)] and not kwargs and callable(fn)


def test_too_many_cases() -> None:
    with pytest.raises(UsageError, match="at most 100,000"):
        cases("gemm", ["m=1:1000", "n=1:1000", "k=1"])


@pytest.mark.parametrize(
    ("op", "words", "told"),
    [("gem", ["m=1"], "there are gemm, "), ("gemm", ["m=1", "n=1"], "needs k=..."),
     ("gemm", ["m=1", "n=1", "k=1", "z=2"], "'z'"),
     ("gemm", ["m=x", "n=1", "k=1"], "m=x"), ("gemm", ["m"], "name=value"), ("gemm", ["m=1", "m=2"], "twice"),
     ("gemm", ["m=-4", "n=1", "k=1"], "negative"), ("gemm", ["x=f32[4]"], "pkg.mod:fn"),
     ("elementwise", ["n=4", "expr=open(a)"], "not allowed"), ("softmax", ["m=4", "n=4", "axis=a"], "axis=a")],
)  # fmt: skip
def test_wrong_words(op: str, words: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        cases(op, words)


def test_wrong_dtype() -> None:
    with pytest.raises(UsageError, match="f31"):
        cases("softmax", ["m=4", "n=4"], "f31")


def test_an_array_that_cannot_be_is_its_case_s_result() -> None:
    (case,) = cases("softmax", ["m=9999999999", "n=9999999999"])
    with pytest.raises(SignatureError):
        case.make()


def test_a_user_s_function(place: Path) -> None:
    found = cases("functions_here:dense", ["w=f32[k,16]", "b=f32[16]", "x=f32[m,k]", "m=8:16:8", "k=4"])
    assert [dict(c.params) for c in found] == [{"m": 8, "k": 4}, {"m": 16, "k": 4}]
    fn, args, kwargs = found[1].make()
    assert [a.shape for a in args] == [(16, 4), (4, 16), (16,)] and not kwargs, "in the order of the signature"
    assert found[0].dtype == "f32" and fn.__name__ == "dense"
    assert found[0].key != Case("functions_here:dense", found[0].params, "f32", found[0].make).key


def test_static_arguments(place: Path) -> None:
    _, args, _ = cases("functions_here:scaled", ["x=f64[n]", "n=4", "factor=2.5"])[0].make()
    assert args[1] == 2.5 and str(args[0]) == "f64[4]"


def test_a_ufunc_takes_its_arrays_in_order() -> None:
    fn, args, _ = cases("numpy:add", ["x1=i32[n]", "x2=i32[n]", "n=3"])[0].make()
    assert fn.__name__ == "add" and len(args) == 2


@pytest.mark.parametrize(
    ("op", "words", "told"),
    [("dense", ["x=f32[m,k]"], "m, k in brackets"), ("dense", ["x=f32[m+1]", "m=2"], "integers and names only"),
     ("dense", ["x=f32[4,4]"], "missing a required argument"), ("dense", [], "name its arrays"),
     ("scaled", ["x=f32[m]", "m=2", "beta=1"], "unexpected keyword argument 'beta'"), ("scaled", ["x=f9[4]"], "f9"),
     ("scaled", ["x=f32[m]", "m=a"], "an extent is an integer"), ("scaled", ["x=f32[m]", "m=-2"], "0 or more"),
     ("missing", ["x=f32[4]"], "no attribute 'missing'"), ("number", ["x=f32[4]"], "is a int, not a function")],
)  # fmt: skip
def test_wrong_words_for_a_function(place: Path, op: str, words: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        cases(f"functions_here:{op}", words)


@pytest.mark.parametrize("name", ["no.such.module:fn", "functions_here:", ":fn", "a b:c"])
def test_functions_that_are_not_there(place: Path, name: str) -> None:
    with pytest.raises(UsageError):
        cases(name, ["x=f32[4]"])


TOML = """
[[case]]
op = "gemm"
dtype = "f64"
params = {m = "8,16", n = [4, 5], k = 3}
[[case]]
op = "functions_here:dense"
arrays = {x = "f32[m,k]", w = "f32[k,16]", b = "f32[16]"}
params = {m = 8, k = "8:16:8"}
"""


def test_files(place: Path) -> None:
    (place / "c.toml").write_text(TOML)
    found = read(place / "c.toml")
    assert [str(c) for c in found] == [
        "gemm m=8 n=4 k=3", "gemm m=8 n=5 k=3", "gemm m=16 n=4 k=3", "gemm m=16 n=5 k=3",
        "functions_here:dense m=8 k=8", "functions_here:dense m=8 k=16",
    ]  # fmt: skip
    assert {c.dtype for c in found[:4]} == {"f64"}
    rows = [{"op": c.op, "params": dict(c.params), "dtype": c.dtype, "status": "ok"} for c in found[:4]]
    for name, text in (("c.json", json.dumps(rows)), ("c.jsonl", "\n".join(map(json.dumps, rows))),
                       ("d.json", json.dumps({"case": rows}))):  # fmt: skip
        (place / name).write_text(text)
        assert read(place / name, ["status"]) == found[:4]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [("a.toml", "[[case]]\nop = ", "cannot be read"), ("a.toml", "", "has no cases"), ("a.json", "[3]", "case 1"),
     ("a.json", '[{"op": "gemm", "speed": 1}]', "unknown key 'speed'"), ("a.json", '[{"op": "gemm"}]', "needs m"),
     ("a.json", '[{"op": "gemm", "params": 3}]', "tables params"), ("a.jsonl", "{}\nnonsense", "cannot be read")],
)  # fmt: skip
def test_wrong_files(tmp_path: Path, name: str, text: str, told: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=told):
        read(tmp_path / name)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path / "none.toml")
