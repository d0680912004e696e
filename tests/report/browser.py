"""A real browser without a window, driven over a pipe (the DevTools protocol): Debian's chromium, which it installs.

with Browser() as browser:
    page = browser.open(path, width=360)
    page.evaluate("document.title")
"""

from __future__ import annotations

import base64
import functools
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROGRAM = "chromium"
# Where the browser looks for its pipe: both ends are first moved out of the way, as either may be 3 or 4 itself.
AT_3_AND_4 = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for target, end in zip((3, 4), ends):
    os.dup2(end, target)
os.execv(sys.argv[3], sys.argv[3:])
"""


class BrowserError(RuntimeError):
    """The browser cannot be had, or does not do what it was told."""


@functools.cache
def install() -> str:
    """The browser's path; it is installed where it is missing, and a BrowserError says why where it cannot be had."""
    if found := shutil.which(PROGRAM):
        return found
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise BrowserError(f"{PROGRAM} is not installed: it needs root and Debian's apt-get")
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120"]
    add = [*apt, "install", "--yes", "--no-install-recommends", PROGRAM, "fonts-dejavu-core"]
    done = subprocess.CompletedProcess[str]([], 0, "", "")
    # The second try follows an update: package lists may be absent (images) or stale (404).
    for commands in ([add], [[*apt, "update"], add]):
        for command in commands:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            )
        if found := shutil.which(PROGRAM):
            return found
    raise BrowserError(f"apt-get could not install {PROGRAM}:\n{(done.stdout + done.stderr)[-2000:]}")


class Browser:
    """One process with a profile of its own. ``requests`` are the addresses that pages asked for, ``messages`` what
    they said on the console and what they were refused."""

    def __init__(self, seconds: float = 60):
        self.folder = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        commands_out, self._commands = os.pipe()
        self._answers, answers_in = os.pipe()

        self._process = subprocess.Popen(
            [
                sys.executable,
                "-S",
                "-c",
                AT_3_AND_4,
                str(commands_out),
                str(answers_in),
                install(),
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                f"--user-data-dir={self.folder.name}",
                "--remote-debugging-pipe",
                "about:blank",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(commands_out, answers_in),
        )
        os.close(commands_out)
        os.close(answers_in)
        self._rest, self._numbers, self._seconds = b"", itertools.count(1), seconds
        self.requests: list[str] = []
        self.messages: list[str] = []
        target = next(found for found in self.send("Target.getTargets")["targetInfos"] if found["type"] == "page")
        attached = self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session: str | None = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    _session: str | None = None

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)
        self.folder.cleanup()

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method and wait for its answer; events that come before it are noted."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def _read(self) -> dict[str, Any]:
        end = time.monotonic() + self._seconds
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._answers], [], [], max(0, end - time.monotonic()))
            chunk = os.read(self._answers, 1 << 16) if ready else b""
            if not chunk:
                raise BrowserError(f"no answer (exit code {self._process.poll()})")
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\0")
        return json.loads(line)

    def _note(self, event: Mapping[str, Any]) -> None:
        method, told = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif method == "Runtime.consoleAPICalled":
            self.messages.append(f"console: {told['type']} {[value.get('value') for value in told['args']]}")
        elif method == "Runtime.exceptionThrown":
            self.messages.append(f"exception: {told['exceptionDetails']}")
        elif method == "Log.entryAdded":
            self.messages.append(f"log: {told['entry']['level']} {told['entry']['text']}")
        elif method == "Page.javascriptDialogOpening":
            self.messages.append(f"dialog: {told['message']}")

    def open(self, path: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> Browser:
        """Show a file, at a size and in a colour scheme, and wait until it is loaded."""
        self.requests.clear()
        self.messages.clear()
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send("Page.navigate", url=path.resolve().as_uri())
        end = time.monotonic() + self._seconds
        loaded = f"document.readyState === 'complete' && location.href === {json.dumps(path.resolve().as_uri())}"
        while not self.evaluate(loaded):
            if time.monotonic() > end:
                raise BrowserError(f"{path} was not loaded")
            time.sleep(0.02)
        return self

    def evaluate(self, code: str) -> Any:
        """The value of an expression in the page. (It runs from outside: the page's policy does not bind it.)"""
        found = self.send("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise BrowserError(json.dumps(found["exceptionDetails"]))
        return found["result"].get("value")

    def move(self, x: float, y: float) -> None:
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str, code: int, text: str = "") -> None:
        """A key as a keyboard gives it: its name, its old number, and the character it writes."""
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=code, text=text)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    def middle(self, selector: str) -> tuple[float, float]:
        """Where an element's middle is, after it was scrolled into view."""
        code = (
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center', behavior: 'instant'});"
            "const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        x, y = self.evaluate(code)
        return x, y

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **self._clip(whole))
        path.write_bytes(base64.b64decode(shot["data"]))

    def _clip(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self.evaluate("[document.documentElement.clientWidth, document.documentElement.scrollHeight]")
        return {"clip": {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}}

    def pdf(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.send("Page.printToPDF", preferCSSPageSize=True)["data"]))
