"""Chromium without a window, by the WebDriver protocol of its chromedriver (https://www.w3.org/TR/webdriver2/)."""

import json
import shutil
import subprocess
import time
import urllib.request
from base64 import b64decode
from pathlib import Path

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


class Browser:
    """A window of Chromium.

    Args:
        folder: that downloads and the driver's log go to.
    """

    def __init__(self, folder: Path) -> None:
        self._log = (folder / "chromedriver.log").open("w+")
        self._driver = subprocess.Popen([DRIVER, "--port=0"], stdout=self._log, stderr=subprocess.STDOUT)
        try:
            self._url = f"http://127.0.0.1:{self._port(folder)}/session"
            options = {
                "binary": CHROMIUM,
                "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
                "prefs": {"download.default_directory": str(folder)},
            }
            logged = {"browser": "ALL"}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": logged}
            answer = self._post("", {"capabilities": {"alwaysMatch": wanted}})
            self._url += f"/{answer['sessionId']}"
        except BaseException:
            self.close()
            raise

    def _port(self, folder: Path) -> int:
        for _ in range(300):
            text = (folder / "chromedriver.log").read_text()
            if "started successfully on port" in text:
                return int(text.split("started successfully on port")[1].split()[0].rstrip("."))
            time.sleep(0.1)
        raise TimeoutError(f"chromedriver does not start: {text}")

    def _post(self, path: str, body: dict) -> dict:
        request = urllib.request.Request(
            f"{self._url}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"]) from error

    def open(self, page: Path) -> None:
        self._post("/url", {"url": page.as_uri()})

    def run(self, script: str, *arguments: object) -> object:
        """What the script, a function's body, returns; a promise is waited for."""
        return self._post("/execute/sync", {"script": script, "args": list(arguments)})

    def devtools(self, command: str, **parameters: object) -> dict:
        """A command of the DevTools protocol, such as those that pretend another screen."""
        return self._post("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def press(self, *keys: str) -> None:
        """Keys, one after the other, where the focus is."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._post("/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def point(self, x: int, y: int, *, click: bool = False) -> None:
        """The mouse to a place in the window, in its pixels."""
        actions = [{"type": "pointerMove", "x": x, "y": y, "duration": 0}]
        actions += [{"type": kind, "button": 0} for kind in ("pointerDown", "pointerUp") if click]
        self._post("/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": actions}]})

    def scroll(self, x: int, y: int, by: int) -> None:
        """The wheel over a place in the window."""
        action = {"type": "scroll", "x": x, "y": y, "deltaX": 0, "deltaY": by, "duration": 0, "origin": "viewport"}
        self._post("/actions", {"actions": [{"type": "wheel", "id": "wheel", "actions": [action]}]})

    def errors(self) -> list[str]:
        """Errors of the page since the last call."""
        return [entry["message"] for entry in self._post("/se/log", {"type": "browser"}) if entry["level"] == "SEVERE"]

    def screenshot(self, path: Path, width: int, height: int, scheme: str = "light") -> None:
        """A picture of the page in a window of that size and colour scheme."""
        self.resize(width, height, scheme)
        path.write_bytes(b64decode(self.devtools("Page.captureScreenshot")["data"]))

    def resize(self, width: int, height: int, scheme: str = "light") -> None:
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.devtools("Emulation.setDeviceMetricsOverride", **screen)
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.run("return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def close(self) -> None:
        try:
            if "/session/" in getattr(self, "_url", ""):
                request = urllib.request.Request(self._url, method="DELETE")
                urllib.request.urlopen(request, timeout=30).close()
        finally:
            self._driver.terminate()
            self._driver.wait(30)
            self._log.close()
