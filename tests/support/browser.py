"""A real Chromium, driven by Selenium, without a screen."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, Literal, cast

from selenium.webdriver import ActionChains, Chrome, ChromeOptions, ChromeService

from tests.support.debian import program

Scheme = Literal["light", "dark"]
Json = Any  # Any: what scripts and DevTools return

_PATIENCE_S = 20.0


class Browser:
    """One page of a browser.

    Args:
        driver: Selenium's.
    """

    def __init__(self, driver: Chrome) -> None:
        self.driver: Json = driver  # Any: Selenium's types are partial

    def open(self, url: str) -> None:
        """Load a page, and forget what the browser said before."""
        self.said()
        self.requests()
        self.driver.get(url)

    def js(self, script: str, *arguments: Json) -> Json:
        """Return what a script returns; a promise is waited for."""
        return self.driver.execute_script(script, *arguments)

    def until(self, condition: str, *arguments: Json) -> Json:
        """Wait until a script's expression is true, and return it."""
        deadline = time.monotonic() + _PATIENCE_S
        while not (found := self.js(f"return {condition}", *arguments)):
            assert time.monotonic() < deadline, f"never true: {condition}; the page says: {self.text('body')[:2000]}"
            time.sleep(0.05)
        return found

    def text(self, selector: str) -> str:
        """Return what can be read of an element."""
        return cast("str", self.js("return document.querySelector(arguments[0])?.innerText ?? ''", selector))

    def table(self, section: str) -> list[dict[str, str]]:
        """Return a section's table: cells by heading."""
        script = """
            const cell = (one) => [one.dataset.label, one.innerText.replace(/\\s+/g, " ").trim()];
            const rows = document.querySelectorAll(`#${arguments[0]} tbody tr`);
            return [...rows].map((row) => Object.fromEntries([...row.cells].map(cell)));"""
        return cast("list[dict[str, str]]", self.js(script, section))

    def press(self, *keys: str) -> None:
        """Press keys one after the other."""
        chain: Json = ActionChains(self.driver)
        for key in keys:
            chain.send_keys(key)
        chain.perform()

    def focused(self) -> str:
        """Return the id of what has the focus, or its text, or its tag."""
        script = "const e = document.activeElement; return e.id || e.ariaLabel || e.innerText || e.tagName"
        return cast("str", self.js(script))

    def viewport(self, width: int, height: int, *, mobile: bool = False) -> None:
        """Set the size of the page in CSS pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def prefer(self, scheme: Scheme, *, motion: bool = True) -> None:
        """Set what the system prefers."""
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "no-preference" if motion else "reduce"},
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def requests(self) -> list[str]:
        """Return the addresses that were asked for since this was last called, the browser's own pages left out."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith(("chrome:", "data:"))]

    def said(self) -> list[str]:
        """Return the errors and warnings of the browser's console since this was last called, violations included."""
        return [e["message"] for e in self.driver.get_log("browser") if e["level"] in ("WARNING", "SEVERE")]

    def picture(self, file: Path) -> None:
        """Write what is to be seen as PNG."""
        assert self.driver.save_screenshot(str(file))


@contextlib.contextmanager
def chromium(folder: Path) -> Generator[Browser]:
    """Run Debian's Chromium with a profile of its own in `folder`."""
    options = ChromeOptions()
    options.binary_location = str(program("chromium", "chromium"))
    for argument in (
        "--headless=new",
        "--no-sandbox",  # tests run as root, for whom Chromium has no sandbox
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--force-color-profile=srgb",
        "--hide-scrollbars",
        "--lang=en-GB",
        f"--user-data-dir={folder / 'chromium'}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    environment = {**os.environ, "TZ": "Europe/Zurich"}
    path = str(program("chromedriver", "chromium-driver"))
    driver = Chrome(options, ChromeService(path, log_output=str(folder / "chromedriver.log"), env=environment))
    try:
        driver.set_script_timeout(30)
        yield Browser(driver)
    finally:
        driver.quit()
