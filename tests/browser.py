"""A real headless Chromium, driven over the WebDriver protocol with nothing but HTTP.

Also a command, which looks at a page the way docs/report.md describes:
`python tests/browser.py PAGE.html PICTURE.png [--width 1200] [--dark] [--mobile]`
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


READY = "document.documentElement.dataset.ready === 'yes'"


@dataclass(frozen=True)
class Browser:
    """One session of one browser."""

    address: str

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """A WebDriver command; returns its `value`."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.address}{path}", data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"]) from None

    def devtools(self, command: str, **parameters: Any) -> Any:
        """A command of the browser's own protocol."""
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def look_as(self, width: int, height: int, dark: bool = False, mobile: bool = False) -> None:
        """Viewport and colour scheme of what is opened next."""
        size = {"width": width, "height": height, "mobile": mobile}
        scale = 2 if mobile else 1
        self.devtools("Emulation.setDeviceMetricsOverride", deviceScaleFactor=scale, **size)
        self.devtools("Emulation.setTouchEmulationEnabled", enabled=mobile)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, page: Path, everything: bool = True) -> None:
        """Open a file and wait until its charts are drawn: all, or those that one sees first."""
        self.call("POST", "/url", {"url": page.absolute().as_uri()})
        self.wait_for(READY)
        if everything:
            self.draw_everything()

    def draw_everything(self) -> None:
        """Scroll through the page, past every chart, and back to its top."""
        figures = self.evaluate("document.querySelectorAll('[data-figure]').length")
        for number in range(figures):
            figure = f"document.querySelectorAll('[data-figure]')[{number}]"
            self.evaluate(f"({figure}.scrollIntoView(), 1)")
            self.wait_for(f"{figure}.querySelector('.plot').data !== undefined && {READY}")
        # Instantly: a picture taken on the way shows the sticky list of sections somewhere else.
        self.evaluate("(scrollTo({top: 0, behavior: 'instant'}), 1)")

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression."""
        body = {"script": f"return ({expression});", "args": []}
        return self.call("POST", "/execute/sync", body)

    def wait_for(self, condition: str, seconds: float = 30) -> None:
        """Wait until an expression is true."""
        until = time.monotonic() + seconds
        while not self.evaluate(condition):
            if time.monotonic() > until:
                raise TimeoutError(f"not within {seconds} s: {condition}; {self.complaints()}")
            time.sleep(0.05)

    def complaints(self) -> list[str]:
        """Warnings and errors of the console since the last call."""
        rows = self.call("POST", "/se/log", {"type": "browser"})
        return [row["message"] for row in rows if row["level"] in ("WARNING", "SEVERE")]

    def requests(self) -> list[str]:
        """Addresses asked for since the last call, less images that the page itself made."""
        rows = self.call("POST", "/se/log", {"type": "performance"})
        events = [json.loads(row["message"])["message"] for row in rows]
        return [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
            and not event["params"]["request"]["url"].startswith("data:image/")
        ]

    def picture(self, path: Path, top: int = 0, height: int | None = None) -> None:
        """A PNG of the page from `top` on, the whole page unless `height` is given."""
        full = self.evaluate("document.documentElement.scrollHeight")
        width = self.evaluate("document.documentElement.clientWidth")
        clip = {"x": 0, "y": top, "width": width, "height": height or full - top, "scale": 1}
        found = self.devtools("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def printed(self, path: Path) -> None:
        """A PDF of the page as it would be printed."""
        found = self.devtools("Page.printToPDF", printBackground=True)
        path.write_bytes(base64.b64decode(found["data"]))


@contextlib.contextmanager
def open_browser() -> Iterator[Browser]:
    """Start a browser with an empty profile; end it and its driver afterwards."""
    if DRIVER is None:
        raise FileNotFoundError("chromedriver")
    with (
        tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as profile,
        subprocess.Popen(
            [DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as driver,
    ):
        try:
            base = Browser(f"http://127.0.0.1:{_port(driver)}")
            options = {"binary": CHROMIUM, "args": [*ARGUMENTS, f"--user-data-dir={profile}"]}
            wanted = {
                "browserName": "chrome",
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            }
            session = base.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            browser = Browser(f"{base.address}/session/{session['sessionId']}")
            try:
                browser.call("POST", "/url", {"url": "about:blank"})
                browser.requests()  # what the browser's own first page asked for
                yield browser
            finally:
                browser.call("DELETE", "")
        finally:
            driver.terminate()


def _port(driver: subprocess.Popen[str]) -> int:
    assert driver.stdout is not None
    for line in driver.stdout:
        found = re.search(r"started successfully on port (\d+)", line)
        if found:
            return int(found[1])
    raise RuntimeError("chromedriver did not start")


def main() -> None:
    """Take a picture of a page."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--top", type=int, default=0)
    parser.add_argument("--height", type=int)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--mobile", action="store_true", help="touch, two pixels a point")
    options = parser.parse_args()
    with open_browser() as browser:
        browser.look_as(options.width, 900, options.dark, options.mobile)
        browser.open(options.page)
        browser.picture(options.picture, options.top, options.height)


if __name__ == "__main__":
    main()
