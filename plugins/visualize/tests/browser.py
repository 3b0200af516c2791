"""A real browser without a window, driven over a pipe by its own protocol: nothing else is needed."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SECONDS = 60.0
PATH = os.environ.get("PATH", os.defpath)  # tests change it, and the browser may be a script

# The browser reads commands from descriptor 3 and answers on 4. Shells differ in which descriptors they can move.
LAUNCH = """
import fcntl, os, sys
given = [int(text) for text in sys.argv[1:3]]
moved = [fcntl.fcntl(at, fcntl.F_DUPFD, 10) for at in given]
for at, want in zip(moved, (3, 4), strict=True):
    os.dup2(at, want)
os.closerange(5, 256)
os.execv(sys.argv[3], sys.argv[3:])
"""


def executable() -> str | None:
    """The browser of this machine, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One open page. `requests` holds every address that was asked for, `complaints` what the console said."""

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive = send, receive
        self._rest = b""
        self._last = 0
        self._session = ""
        self.requests: list[str] = []
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)
        self._loaded = False

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What the browser answers; raises AssertionError when it refuses."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self._last:
                assert "error" not in found, (method, found["error"])
                return found["result"]

    def open(self, file: Path, dark: bool = False) -> None:
        """Load the file, and wait until it has loaded."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self._loaded = False
        self.call("Page.navigate", url=file.as_uri())
        while not self._loaded:
            self._next()
        self.frames(2)

    def frames(self, count: int) -> None:
        """Let the page draw this often."""
        for _ in range(count):
            self.run("new Promise((done) => requestAnimationFrame(() => done(1)))")

    def run(self, code: str) -> Any:
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def click(self, x: float, y: float) -> None:
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            pressed = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **pressed)
        self.frames(2)

    def move(self, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        self.frames(1)

    def box(self, selector: str) -> dict[str, float]:
        """Where an element stands on the screen, scrolled into view."""
        return self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'});"
            "const b = e.getBoundingClientRect(); return {x: b.x, y: b.y, width: b.width, height: b.height}; })()"
        )

    def _next(self) -> dict[str, Any]:
        limit = time.monotonic() + SECONDS
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._receive], [], [], max(0.0, limit - time.monotonic()))
            assert ready, "the browser does not answer"
            more = os.read(self._receive, 1 << 20)
            assert more, "the browser is gone"
            self._rest += more
        text, _, self._rest = self._rest.partition(b"\0")
        found = json.loads(text)
        self._note(found.get("method"), found.get("params", {}))
        return found

    def _note(self, method: str | None, told: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif method == "Log.entryAdded":
            self.complaints.append(told["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(told["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled":
            self.complaints.append(str(told["args"]))
        elif method == "Page.loadEventFired":
            self._loaded = True


@contextmanager
def started(program: str, home: Path) -> Iterator[Page]:
    """A browser with a fresh profile in `home`, gone at the end."""
    commands, send = os.pipe()
    receive, answers = os.pipe()
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    options += ["--remote-debugging-pipe", f"--user-data-dir={home / 'profile'}", "--window-size=1300,1000"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    launch = [sys.executable, "-I", "-S", "-c", LAUNCH, str(commands), str(answers), program, *options]
    with subprocess.Popen(
        launch,
        pass_fds=(commands, answers),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PATH": PATH, "HOME": str(home)},
        start_new_session=True,
    ) as process:
        os.close(commands)
        os.close(answers)
        page = None
        try:
            page = Page(send, receive)
            yield page
        finally:
            if page is not None and process.poll() is None:
                page._session = ""
                os.write(send, json.dumps({"id": 0, "method": "Browser.close"}).encode() + b"\0")
            os.close(send)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
            os.close(receive)
