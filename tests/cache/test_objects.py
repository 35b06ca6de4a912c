"""The object cache: what was put comes back, and nothing else ever does."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from autotune.cache.objects import ObjectCache, private_directory

NAME, DATA = "ab" * 16, bytes(range(256)) * 40
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def cache(tmp_path: Path) -> ObjectCache:
    made = ObjectCache(tmp_path / "deep" / "objects")
    assert made.put(NAME, DATA)
    return made


def file(cache: ObjectCache) -> Path:
    assert cache.directory is not None
    return cache.directory / f"{NAME}.o"


def test_what_was_put_comes_back_to_every_process(cache: ObjectCache) -> None:
    assert cache.get(NAME) == DATA and ObjectCache(cache.directory).get(NAME) == DATA
    assert cache.get("cd" * 16) is None
    assert cache.put(NAME, b"") and cache.get(NAME) == b""


def test_modes_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        cache = ObjectCache(tmp_path / "objects")
        cache.put(NAME, DATA)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file(cache).stat().st_mode) == 0o600
    assert stat.S_IMODE(file(cache).parent.stat().st_mode) == 0o700


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "a bit": lambda path: path.write_bytes(path.read_bytes()[:5000] + b"\xff" + path.read_bytes()[5001:]),
    "header": lambda path: path.write_bytes(b"#" + path.read_bytes()[1:]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_a_miss_and_removed(cache: ObjectCache, damage: str) -> None:
    DAMAGE[damage](file(cache))
    assert cache.get(NAME) is None and not file(cache).exists()
    assert cache.put(NAME, DATA) and cache.get(NAME) == DATA


def test_a_file_under_another_digest_is_a_miss(cache: ObjectCache) -> None:
    file(cache).rename(file(cache).with_name(f"{'cd' * 16}.o"))
    assert cache.get("cd" * 16) is None


def test_files_that_others_could_have_made_are_not_read(cache: ObjectCache) -> None:
    file(cache).chmod(0o622)
    with pytest.warns(RuntimeWarning, match="not a private file of this user and is not used"):
        assert cache.get(NAME) is None
    assert file(cache).exists()
    file(cache).chmod(0o600)
    elsewhere = file(cache).rename(file(cache).parent / "elsewhere")
    file(cache).symlink_to(elsewhere)
    assert cache.get(NAME) is None, "links are not followed"
    file(cache).unlink()
    os.mkfifo(file(cache))
    with pytest.warns(RuntimeWarning, match="not a private file"):
        assert cache.get(NAME) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a file of another user, which only root can")
def test_files_and_directories_of_another_user_are_refused(cache: ObjectCache) -> None:
    os.chown(file(cache), 65534, -1)
    with pytest.warns(RuntimeWarning, match="not a private file"):
        assert cache.get(NAME) is None
    os.chown(file(cache).parent, 65534, -1)
    with pytest.warns(RuntimeWarning, match="is not this user's alone .owner 65534"):
        other = ObjectCache(cache.directory)
    assert other.get(NAME) is None and not other.put(NAME, DATA)


def test_without_a_usable_directory_everything_is_a_miss(tmp_path: Path) -> None:
    nothing = ObjectCache(None)
    assert nothing.get(NAME) is None and not nothing.put(NAME, DATA) and nothing.gc() == 0
    (tmp_path / "plain").write_text("")
    for place in (tmp_path / "plain", tmp_path / "plain" / "below"):
        with pytest.warns(RuntimeWarning, match="machine code is not kept: .*plain"):
            assert not ObjectCache(place).put(NAME, DATA)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    assert "not this user's alone" in private_directory(tmp_path / "open")
    assert private_directory(tmp_path / "open", alone=False) == ""


def test_names_are_digests_only(cache: ObjectCache) -> None:
    for name in ("../../etc/passwd", "", "AB" * 16, "ab/cd", "." * 32):
        with pytest.raises(ValueError, match="not lower-case hexadecimal"):
            cache.get(name)


def test_the_longest_unused_go_first(cache: ObjectCache) -> None:
    names = [f"{n:032x}" for n in range(8)]
    for age, name in enumerate(names):
        cache.put(name, DATA)
        os.utime(file(cache).with_name(f"{name}.o"), (0, time.time() - 10_000 + age))
    assert cache.get(names[0]) == DATA, "a use makes it young again"
    (file(cache).parent / "notes.txt").write_text("not ours")
    draft, abandoned = (file(cache).with_name(f"{NAME}.{n}.0.draft") for n in (1, 2))
    for path in (draft, abandoned):
        path.write_bytes(DATA)
    os.utime(abandoned, (0, time.time() - 10_000))
    freed = cache.gc(limit=4 * (len(DATA) + 100))
    left = [name for name in names if cache.get(name)]
    assert freed > 4 * len(DATA) and left == [names[0], names[6], names[7]] and cache.get(NAME) == DATA
    assert (file(cache).parent / "notes.txt").exists() and draft.exists() and not abandoned.exists()


def test_the_size_stays_bounded(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path / "objects", limit=200_000)
    for n in range(100):
        cache.put(f"{n:032x}", DATA)
    assert sum(p.stat().st_size for p in (tmp_path / "objects").iterdir()) < 230_000
    assert cache.get(f"{99:032x}") == DATA


def test_a_full_disk_is_a_warning_and_leaves_no_draft(tmp_path: Path) -> None:
    body = f"""
import resource, sys, warnings
from pathlib import Path
from autotune.cache.objects import ObjectCache
cache = ObjectCache(Path(sys.argv[1]))
assert cache.put("ab" * 16, b"small")
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    assert not cache.put("cd" * 16, bytes({len(DATA)}))
assert "machine code is not kept" in str(seen[0].message)
assert cache.get("ab" * 16) == b"small" and cache.get("cd" * 16) is None
assert len(list(Path(sys.argv[1]).iterdir())) == 1
"""
    done = subprocess.run([sys.executable, "-c", body, tmp_path / "o"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_processes_that_write_and_collect_at_once_agree(tmp_path: Path) -> None:
    body = f"""
import sys
from pathlib import Path
from autotune.cache.objects import ObjectCache
cache = ObjectCache(Path(sys.argv[1]), limit=100_000)
for n in range(120):
    data = bytes([n % 16]) * {len(DATA)}
    assert cache.put(f"{{n % 16:032x}}", data)
    assert cache.get(f"{{n % 16:032x}}") in (None, data)
"""
    command = [sys.executable, "-W", "error", "-c", body, str(tmp_path / "objects")]
    workers = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) for _ in range(3)]
    for worker in workers:
        _, errors = worker.communicate(timeout=60)
        assert worker.returncode == 0, errors.decode()
