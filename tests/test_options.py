"""Options: precedence of their sources, and that a wrong value is refused by name."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest

from autotune import options
from autotune.ir.errors import UsageError
from autotune.options import Options, context, resolve

ROOT = Path(__file__).resolve().parents[1]
DESIGNED = {
    "AUTOTUNE_CACHE_DIR", "AUTOTUNE_CACHE", "AUTOTUNE_TUNE", "AUTOTUNE_BUDGET", "AUTOTUNE_DEVICE",
    "AUTOTUNE_NUM_THREADS", "AUTOTUNE_SEED", "AUTOTUNE_FROZEN", "AUTOTUNE_DEBUG", "AUTOTUNE_GRAPH",
}  # fmt: skip


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty environment, home and working directory."""
    for name in [name for name in os.environ if name.startswith(("AUTOTUNE_", "XDG_")) or name == "NO_COLOR"]:
        monkeypatch.delenv(name)
    home, work = tmp_path / "home", tmp_path / "a" / "b"
    home.mkdir()
    work.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(work)
    for cached in (options._files, options._usable, options._warn):
        cached.cache_clear()
    yield tmp_path


def test_defaults_and_frozen() -> None:
    assert resolve() == Options()
    assert (Options().tune, Options().cache, Options().threads) == ("cached", "readwrite", None)
    with pytest.raises(FrozenInstanceError):
        Options().tune = "off"  # type: ignore[misc]
    assert set(options._TABLE) == {f.name for f in fields(Options)}
    assert set(options._VARIABLES) == DESIGNED


def test_argument_context_environment_file_default(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    config = clean / "home" / ".config" / "autotune"
    config.mkdir(parents=True)
    seen.append(resolve().debug)
    (config / "config.toml").write_text("debug = 1\nseed = 11\n")
    options._files.cache_clear()
    seen.append(resolve().debug)
    (clean / "pyproject.toml").write_text("[project]\nname = 'x'\n[tool.autotune]\ndebug = 2\nbudget = '500ms'\n")
    options._files.cache_clear()
    seen.append(resolve().debug)
    monkeypatch.setenv("AUTOTUNE_DEBUG", "3")
    seen.append(resolve().debug)
    with context(debug=4):
        seen += [resolve().debug, resolve(debug=None).debug, resolve(debug=5).debug]
    assert seen == [0, 1, 2, 3, 4, 4, 5]
    assert (resolve().seed, resolve().budget, resolve().debug) == (11, 0.5, 3)


def test_the_nearest_project_with_a_table_counts(clean: Path) -> None:
    (clean / "pyproject.toml").write_text("[tool.autotune]\nseed = 1\nthreads = 3\n")
    (clean / "a" / "pyproject.toml").write_text("[tool.autotune]\nseed = 2\ngraph = 'g.svg'\ncache_dir = '/x'\n")
    (clean / "a" / "b" / "pyproject.toml").write_text("[tool.other]\nautotune = 1\n")
    found = resolve()
    assert (found.seed, found.threads, found.graph, found.cache_dir) == (2, None, str(clean / "a" / "g.svg"), "/x")


@pytest.mark.parametrize(
    ("variable", "text", "option", "value"),
    [
        ("AUTOTUNE_BUDGET", "2s", "budget", 2.0), ("AUTOTUNE_BUDGET", "500ms", "budget", 0.5),
        ("AUTOTUNE_BUDGET", "1.5", "budget", 1.5), ("AUTOTUNE_BUDGET", " 2 min ", "budget", 120.0),
        ("AUTOTUNE_BUDGET", "1e-3", "budget", 1e-3), ("AUTOTUNE_NUM_THREADS", "4", "threads", 4),
        ("AUTOTUNE_TUNE", "first-call", "tune", "first-call"), ("AUTOTUNE_CACHE", "readonly", "cache", "readonly"),
        ("AUTOTUNE_CACHE_DIR", "~/x", "cache_dir", "HOME/x"), ("AUTOTUNE_DEVICE", "opencl:0", "device", "opencl:0"),
        ("AUTOTUNE_SEED", "7", "seed", 7), ("AUTOTUNE_FROZEN", "yes", "frozen", True),
        ("AUTOTUNE_FROZEN", "0", "frozen", False), ("AUTOTUNE_DEBUG", "5", "debug", 5),
        ("AUTOTUNE_GRAPH", "out.svg", "graph", "out.svg"), ("NO_COLOR", "anything", "no_color", True),
        ("NO_COLOR", "", "no_color", False), ("AUTOTUNE_TUNE", "", "tune", "cached"),
    ],
)  # fmt: skip
def test_each_variable(monkeypatch: pytest.MonkeyPatch, variable: str, text: str, option: str, value: Any) -> None:
    monkeypatch.setenv(variable, text)
    wanted = value.replace("HOME", os.environ["HOME"]) if isinstance(value, str) else value
    assert getattr(resolve(), option) == wanted


@pytest.mark.parametrize(
    ("variable", "text", "allowed"),
    [
        ("AUTOTUNE_BUDGET", "fast", "500ms"), ("AUTOTUNE_BUDGET", "0", "> 0"), ("AUTOTUNE_BUDGET", "-1s", "> 0"),
        ("AUTOTUNE_BUDGET", "nan", "> 0"), ("AUTOTUNE_BUDGET", "1e999", "> 0"), ("AUTOTUNE_BUDGET", "3 weeks", "1min"),
        ("AUTOTUNE_BUDGET", "1.2.3", "500ms"), ("AUTOTUNE_NUM_THREADS", "0", ">= 1"),
        ("AUTOTUNE_NUM_THREADS", "two", ">= 1"), ("AUTOTUNE_NUM_THREADS", "9" * 5000, ">= 1"),
        ("AUTOTUNE_TUNE", "always", "off | cached | first-call | background | auto"),
        ("AUTOTUNE_CACHE", "readwritten", "readwrite | readonly | off"), ("AUTOTUNE_CACHE", "/some/path", "readonly"),
        ("AUTOTUNE_SEED", "-1", ">= 0"), ("AUTOTUNE_FROZEN", "perhaps", "true | yes"),
        ("AUTOTUNE_DEBUG", "6", "from 0 to 5"), ("AUTOTUNE_DEBUG", "1.0", "from 0 to 5"),
    ],
)  # fmt: skip
def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, text: str, allowed: str) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(UsageError) as caught:
        resolve()
    assert variable in str(caught.value) and repr(text) in str(caught.value) and allowed in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"threads": 0}, {"threads": 1.5}, {"threads": [1]}, {"budget": float("inf")}, {"budget": True}, {"trials": 0},
        {"tune": "on"}, {"tune": True}, {"cache": "readnly"}, {"cache": 3}, {"cache_dir": ""}, {"cache_dir": "a\0b"},
        {"device": ""}, {"device": 0}, {"debug": 9}, {"name": ""}, {"frozen": 2}, {"seed": -1}, {"tune": ["off"]},
    ],
)  # fmt: skip
def test_a_wrong_argument_is_refused_in_call_and_context(wrong: dict[str, Any]) -> None:
    (name, value), *_ = wrong.items()
    with pytest.raises(UsageError) as caught:
        resolve(**wrong)
    assert f"{name}={value!r}: {name} must be " in str(caught.value)
    with pytest.raises(UsageError), context(**wrong):
        pass


def test_an_unknown_option_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"resolve\(\) got an unexpected option 'budgett'; options are device, "):
        resolve(budgett=1)
    with pytest.raises(TypeError, match="context"), context(tunes="off"):
        pass


def test_unknown_variables_and_keys_are_said_once(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTUNE_TUNES", "off")
    (clean / "pyproject.toml").write_text("[tool.autotune]\nspeed = 9\nseed = 4\n")
    with pytest.warns(RuntimeWarning) as seen:
        assert resolve().seed == 4 and resolve().seed == 4
    texts = sorted(str(w.message) for w in seen)
    assert len(texts) == 2 and texts[1].startswith("AUTOTUNE_TUNES is no variable of autotune and is ignored")
    assert "pyproject.toml: speed is no option" in texts[0]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[tool.autotune]\nseed = \n", "cannot read tool.autotune"),
        ("[tool]\nautotune = 3\n", "cannot read tool.autotune"),
        ("[tool.autotune]\nseed = -1\n", "seed=-1: seed must be an integer >= 0"),
        ("[ 'tool' . autotune]\ntune = 'never'\n", "tune='never': tune must be off | cached"),
        ("tool.autotune.tune = 'never'\n", "tune='never': tune must be off | cached"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_named(clean: Path, text: str, why: str) -> None:
    (clean / "pyproject.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        resolve()
    assert f"{clean / 'pyproject.toml'}: {why}" in str(caught.value)


def test_contexts_nest_and_end_with_an_exception() -> None:
    with context(tune="off", seed=3):
        with pytest.raises(KeyError), context(tune="auto"):
            assert (resolve().tune, resolve().seed) == ("auto", 3)
            raise KeyError
        assert resolve().tune == "off"
    assert resolve() == Options()


def test_contexts_are_of_one_thread_and_task() -> None:
    seen: dict[str, Any] = {}

    async def task(name: str, seed: int) -> None:
        with context(seed=seed):
            for _ in range(3):
                await asyncio.sleep(0)
                seen[name] = resolve().seed

    async def both() -> None:
        await asyncio.gather(task("one", 1), task("two", 2))

    with context(seed=9):
        thread = threading.Thread(target=lambda: seen.update(thread=resolve().seed))
        thread.start()
        thread.join()
        asyncio.run(both())
        assert resolve().seed == 9
    assert seen == {"one": 1, "two": 2, "thread": 0}


def test_where_the_store_is(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = clean / "home"
    assert Options().store() == str(home / ".cache" / "autotune" / "records.db")
    assert (home / ".cache" / "autotune").stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("XDG_CACHE_HOME", str(clean / "xdg"))
    assert Options().store() == str(clean / "xdg" / "autotune" / "records.db")
    assert Options(cache_dir=str(clean / "mine")).store() == str(clean / "mine" / "records.db")
    assert resolve(cache="./x.db").store() == "./x.db" and resolve(cache="./dir").store() == "dir/records.db"
    assert resolve(cache=clean / "dir").store() == str(clean / "dir" / "records.db")
    assert resolve(cache="postgresql://host/db").store() == "postgresql://host/db"
    assert Options(cache="off").store() is None
    assert Options(cache="readonly", cache_dir=str(clean / "none")).store() is None
    assert not (clean / "none").exists()


def test_no_place_for_a_cache_is_one_warning(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (clean / "plain").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(clean / "plain"))
    with pytest.warns(RuntimeWarning) as seen:
        assert resolve().store() is None and resolve().store() is None
    assert len(seen) == 1
    text = str(seen[0].message)
    assert "nothing is kept on disk" in text and str(clean / "plain") in text and "AUTOTUNE_CACHE_DIR" in text
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    assert Options().store() == str(clean / "home" / ".cache" / "autotune" / "records.db")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "")
    with pytest.warns(RuntimeWarning, match="there is no home directory"):
        assert Options().store() is None


def test_a_deleted_working_directory_is_survived(clean: Path) -> None:
    gone = clean / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve(seed=1).seed == 1


def test_resolving_imports_nothing(clean: Path) -> None:
    code = "import autotune.options as o, sys; before = set(sys.modules); o.resolve(); print(set(sys.modules) - before)"
    place = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=place)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr


def test_the_environment_is_read_here_only() -> None:
    readers = [
        str(path.relative_to(ROOT / "autotune")) for path in (ROOT / "autotune").rglob("*.py")
        if any(word in path.read_text("utf-8") for word in ("os.environ", "os.getenv", "environ["))
    ]  # fmt: skip
    assert readers == ["options.py"]
