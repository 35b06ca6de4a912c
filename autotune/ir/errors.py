"""Every exception of the package, defined once so that each room can raise and catch the same classes."""

from __future__ import annotations


class AutotuneError(Exception):
    """Base of all errors that a user's input, machine or file can cause."""


class TraceError(AutotuneError):
    """The user's function cannot be traced; the message names the line and the traceable alternative."""


class SignatureError(AutotuneError, TypeError):
    """A call's arguments are of a kind that no kernel accepts (dtype, layout, `out`)."""


class ScheduleError(AutotuneError):
    """A step does not apply to this nest. `reason` is a short code that search counts."""

    def __init__(self, message: str, reason: str = "illegal-step") -> None:
        super().__init__(message)
        self.reason = reason


class VerifyError(AutotuneError):
    """The verifier or the equivalence check rejected a nest."""


class BuildError(AutotuneError):
    """Source could not be rendered or compiled. `log` is the compiler's own text, `reason` a short code."""

    def __init__(self, message: str, log: str = "", reason: str = "compile") -> None:
        super().__init__(message)
        self.log = log
        self.reason = reason


class DeviceError(AutotuneError):
    """No such device, driver or toolchain on this machine (exit code 3)."""


class CacheError(AutotuneError):
    """A cache file, pack or record is unreadable, malformed or of a newer schema."""


class MeasureError(AutotuneError):
    """Nothing valid was measured (exit code 4)."""


class UsageError(AutotuneError):
    """The command line, an option or an environment variable is wrong (exit code 2)."""


class FrozenError(UsageError):
    """Nothing is stored for a kernel, and AUTOTUNE_FROZEN forbids anything else (exit code 5)."""
