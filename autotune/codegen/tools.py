"""Compilers and disassemblers as processes of their own: whatever becomes of one is a BuildError with a reason."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence

from ..ir.errors import BuildError, DeviceError

LIMIT = 60.0  # seconds that a tool is given for one kernel


def run(
    words: Sequence[str], text: str = "", seconds: float = LIMIT, what: str = ""
) -> subprocess.CompletedProcess[str]:
    """The finished process, whatever its exit code. Raises DeviceError where there is no such program, and BuildError
    with reason "timeout" or "crash"."""
    name = what or words[0]
    pipe = subprocess.PIPE
    try:
        child = subprocess.Popen(
            words, stdin=pipe, stdout=pipe, stderr=pipe, text=True, errors="replace", start_new_session=True
        )
    except OSError as error:
        raise DeviceError(f"{name} cannot be run: {words[0]}: {error.strerror or error}") from None
    try:
        out, err = child.communicate(text, seconds)
    except subprocess.TimeoutExpired:
        raise BuildError(f"{name} did not finish within {seconds:g} s and was stopped", reason="timeout") from None
    finally:
        if child.poll() is None:  # and what it has started itself
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
    done = subprocess.CompletedProcess(words, child.returncode, out, err)
    if done.returncode < 0:
        try:
            how = signal.Signals(-done.returncode).name
        except ValueError:
            how = f"signal {-done.returncode}"
        raise BuildError(f"{name} crashed ({how})", done.stderr, "crash")
    return done


def garbage(name: str, output: str, why: str) -> BuildError:
    """What a tool that reported success wrote makes no sense."""
    start = output.strip()[:60]
    return BuildError(f"{name} reported success, but {why}; its output begins {start!r}", output[:2000], "garbage")
