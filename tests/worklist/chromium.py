"""A real browser for the page's own scripts: Chromium without a window, spoken to over its debugging pipe (no further package needed)."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--mute-audio",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--accept-lang=zh-CN",
    "--remote-debugging-pipe",
]


class Chromium:
    """One page in one browser with a fresh profile."""

    def __init__(self) -> None:
        assert PROGRAM is not None
        self._profile = tempfile.mkdtemp(prefix="valuer-chromium-")
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()

        def pipes() -> None:  # the protocol's file descriptors are 3 and 4
            first, second = os.dup(theirs_in), os.dup(theirs_out)
            os.dup2(first, 3)
            os.dup2(second, 4)

        command = [PROGRAM, *FLAGS, f"--user-data-dir={self._profile}", "about:blank"]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(
            command, preexec_fn=pipes, close_fds=False, stdin=quiet, stdout=quiet, stderr=quiet
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._buffer, self._numbers, self._session = b"", itertools.count(1), ""
        self.complaints: list[str] = []
        self.fresh()

    def fresh(self) -> None:
        """A new empty page instead of the present one, which goes without being asked; no cookie stays."""
        self._session = ""
        self.command("Storage.clearCookies")
        old = [
            found["targetId"] for found in self.command("Target.getTargets")["targetInfos"] if found["type"] == "page"
        ]
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        for one in old:
            self.command("Target.closeTarget", targetId=one)
        self._session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.command(f"{domain}.enable")
        self.command("Emulation.setFocusEmulationEnabled", enabled=True)
        self.size(1280, 860)
        self.complaints.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._out)
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        shutil.rmtree(self._profile, ignore_errors=True)

    def command(self, method: str, **parameters: Any) -> Any:
        """Sends one command of the DevTools protocol and returns its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters} | (
            {"sessionId": self._session} if self._session else {}
        )
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._buffer:
                read = os.read(self._in, 1 << 20)
                if not read:
                    raise RuntimeError("Chromium has gone")
                self._buffer += read
            line, _, self._buffer = self._buffer.partition(b"\0")
            answer = json.loads(line)
            if answer.get("method") == "Page.javascriptDialogOpening":  # "leave this page?": yes
                self._say("Page.handleJavaScriptDialog", accept=True)
            if answer.get("method") == "Runtime.exceptionThrown":
                self.complaints.append(str(answer["params"]["exceptionDetails"]))
            if answer.get("method") == "Log.entryAdded" and answer["params"]["entry"]["level"] == "error":
                self.complaints.append(answer["params"]["entry"]["text"])
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def _say(self, method: str, **parameters: Any) -> None:
        message = {"id": next(self._numbers), "method": method, "params": parameters, "sessionId": self._session}
        os.write(self._out, json.dumps(message).encode() + b"\0")

    def run(self, script: str) -> Any:
        """The value of an expression in the page; promises are waited for."""
        result = self.command(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in result:
            raise RuntimeError(
                str(result["exceptionDetails"].get("exception", result["exceptionDetails"]).get("description"))
            )
        return result["result"].get("value")

    def until(self, condition: str, seconds: float = 30.0) -> None:
        """Waits until an expression is true."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                value = self.run(f"!!({condition})")
            except RuntimeError:  # between two pages there is none to ask
                value = None
            if value:
                return
            time.sleep(0.05)
        raise AssertionError(f"never true: {condition}")

    def open(self, address: str) -> None:
        """Goes to a page and waits until it is there."""
        self.command("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'", 60)

    def type(self, text: str) -> None:
        """Types at the caret."""
        self.command("Input.insertText", text=text)

    def press(self, key: str, **parameters: Any) -> None:
        """Presses one key."""
        code = {"ArrowDown": 40, "ArrowUp": 38, "Enter": 13, "Tab": 9}.get(key, 0)
        text = {"text": "\r"} if key == "Enter" else {}
        self.command(
            "Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **text, **parameters
        )
        self.command("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code, **parameters)

    def size(self, width: int, height: int, *, dark: bool = False) -> None:
        """The window's size in CSS pixels, and the colours its user prefers."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.command("Emulation.setEmulatedMedia", features=features)

    def picture(self, path: Path) -> None:
        """The visible part of the page as PNG."""
        path.write_bytes(base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"]))
