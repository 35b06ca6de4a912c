"""Machine code on disk, by digest: what spares a second process the compiler. Private to one user, never shared.

Knows files, owners and digests; must not know what the bytes are. Whatever is wrong with a file (cut short, changed,
another user's) makes it a miss. Digests find damage; owners and modes keep out code that somebody else put there.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
import warnings
from contextlib import suppress
from pathlib import Path

_MAGIC = b"autotune object 1\n"
_NAME = re.compile(r"[0-9a-f]{8,128}")
_HEADER = len(_MAGIC) + 32


def private_directory(path: Path, alone: bool = True) -> str:
    """Make `path`, mode 0700, if missing; "" or why it cannot be used: not writable, or (`alone`) by others too."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        found = path.stat()
    except OSError as error:
        return f"{path}: {error.strerror or error}"
    if not stat.S_ISDIR(found.st_mode):
        return f"{path} is not a directory"
    if alone and (found.st_uid != os.geteuid() or found.st_mode & 0o022):
        return f"{path} is not this user's alone (owner {found.st_uid}, mode {found.st_mode & 0o777:o})"
    return "" if os.access(path, os.W_OK | os.X_OK) else f"{path} is not writable"


class ObjectCache:
    """Bytes by digest under `directory`, at most about `limit` bytes, the longest unused going first.

    Only speed depends on it: where the directory cannot be used (or is None) every `get` is a miss, after one warning.
    """

    def __init__(self, directory: Path | None, limit: int = 256 << 20) -> None:
        problem = private_directory(directory) if directory else ""
        if problem:
            _warn(f"machine code is not kept: {problem}")
        self.directory = None if problem else directory
        self.limit = self._unseen = limit  # _unseen: bytes written since the directory was last looked through

    def _path(self, digest: str) -> Path | None:
        if not _NAME.fullmatch(digest):
            raise ValueError(f"object digest {digest!r} is not lower-case hexadecimal")
        return self.directory and self.directory / f"{digest}.o"

    def get(self, digest: str) -> bytes | None:
        """The bytes last put under `digest`, or None. A damaged file is removed; another user's is left unread."""
        path = self._path(digest)
        if path is None:
            return None
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:  # missing, a link, or unreadable: nothing of ours
            return None
        with open(handle, "rb") as file:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
                _warn(f"{path} is not a private file of this user and is not used; remove it")
                return None
            content = file.read()
            if time.time() - found.st_mtime > 3600:  # renewed at most once an hour: `gc` goes by it
                with suppress(OSError):  # a read-only file system keeps no order of use
                    os.utime(handle)
        data = content[_HEADER:]
        if content[:_HEADER] == _header(digest, data):
            return data
        with suppress(OSError):  # where it cannot be removed, it stays a miss
            path.unlink()
        return None

    def put(self, digest: str, data: bytes) -> bool:
        """Keep `data`, atomically: a reader sees all of it or none. False, after a warning, where the disk refuses."""
        path = self._path(digest)
        if path is None:
            return False
        draft = path.with_suffix(f".{os.getpid()}.{os.urandom(4).hex()}.draft")
        try:
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(_header(digest, data) + data)
            os.replace(draft, path)
        except OSError as error:
            with suppress(OSError):
                draft.unlink()
            _warn(f"machine code is not kept: {path.parent}: {error.strerror or error}")
            return False
        self._unseen += len(data)
        if self._unseen > self.limit // 16:
            self.gc()
        return True

    def gc(self, limit: int | None = None) -> int:
        """Remove the longest unused files until `limit` bytes (default: the cache's) are left; how many bytes went."""
        self._unseen, files, freed = 0, [], 0
        for entry in os.scandir(self.directory) if self.directory and self.directory.is_dir() else ():
            with suppress(FileNotFoundError):  # another process collects too
                found, suffix = entry.stat(follow_symlinks=False), Path(entry.name).suffix
                if suffix == ".o" or (suffix == ".draft" and time.time() - found.st_mtime > 3600):
                    files.append((found.st_mtime, found.st_size, Path(entry.path)))
        excess = sum(size for _, size, _ in files) - (self.limit if limit is None else limit)
        for _, size, path in sorted(files):
            if freed < excess:
                path.unlink(missing_ok=True)
                freed += size
        return freed


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=3)


def _header(digest: str, data: bytes) -> bytes:
    """Names the key too, so that a file renamed to another digest is not taken for it."""
    return _MAGIC + hashlib.sha256(digest.encode() + b"\0" + data).digest()
