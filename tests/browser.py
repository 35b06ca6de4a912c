"""A headless Chromium, driven through the pipe of its DevTools protocol: no driver and no library of its own."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SECONDS = 60.0  # for any one answer: a busy machine is no failure
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
    "--disable-extensions", "--disable-background-networking", "--force-device-scale-factor=1",
    "--remote-debugging-pipe",
)  # fmt: skip


def program() -> str | None:
    """Where the browser is, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)
# The protocol's pipe is file 3, to the browser, and file 4.
_EXEC = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for end, place in zip(ends, (3, 4)): os.dup2(end, place)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """One page. `requests`: the addresses that it asked for; `errors`: exceptions that its scripts did not catch."""

    def __init__(self, folder: Path, width: int = 1440, height: int = 1000) -> None:
        self.requests: list[str] = []
        self.errors: list[str] = []
        read, self._to = os.pipe()
        self._from, write = os.pipe()
        name = program()
        assert name is not None
        command = [name, *FLAGS, f"--user-data-dir={folder}", f"--window-size={width},{height}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _EXEC, str(read), str(write), *command], pass_fds=(read, write),
            start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(read)
        os.close(write)
        self._count, self._buffer, self._session = 0, b"", ""
        try:
            target = self.ask("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Network"):
                self.ask(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the browser and all its processes."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def ask(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol and wait for its answer; events on the way are noted."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._count:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            if answer.get("method") == "Network.requestWillBeSent":
                self.requests.append(answer["params"]["request"]["url"])
            if answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(answer["params"]["exceptionDetails"])[:500])

    def _read(self) -> Any:
        while b"\0" not in self._buffer:
            assert select.select([self._from], [], [], SECONDS)[0], "the browser does not answer"
            chunk = os.read(self._from, 1 << 20)
            assert chunk, "the browser has ended"
            self._buffer += chunk
        first, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(first)

    def run(self, script: str) -> Any:
        """The value of an expression of JavaScript in the page."""
        done = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, f"{script}: {json.dumps(done['exceptionDetails'])[:500]}"
        return done["result"].get("value")

    def wait(self, script: str) -> Any:
        """Run an expression until it is true."""
        end = time.monotonic() + SECONDS
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.05)
        return value

    def open(self, page: Path, fragment: str = "") -> None:
        """Load a report from disk, and wait until it is drawn."""
        self.ask("Page.navigate", url=page.absolute().as_uri() + fragment)
        self.wait("location.protocol === 'file:' && document.body?.dataset.ready === 'yes'")

    def click(self, script: str) -> None:
        """A real click, with mouse events, in the middle of the element that the expression gives."""
        middle = "(r => [r.x + r.width / 2, r.y + r.height / 2])"
        self.run(f"({script}).scrollIntoView({{block: 'center', behavior: 'instant'}})")
        x, y = self.run(f"{middle}(({script}).getBoundingClientRect())")
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
            time.sleep(0.15)

    def key(self, name: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=name)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))
