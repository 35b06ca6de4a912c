"""How the measuring process and its parent talk: frames of a 4-byte length and JSON, and notes of what is done."""

from __future__ import annotations

import json
import struct
from typing import Any

NOTE = struct.Struct("<8sqd")  # stage, handle, time.monotonic() of the start of the stage


def frame(value: Any) -> bytes:
    data = json.dumps(value, separators=(",", ":")).encode()
    return len(data).to_bytes(4, "little") + data
