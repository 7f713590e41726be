"""A real Chromium, driven by Selenium, without a screen."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any, Literal

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from tests.support.debian import program

Scheme = Literal["light", "dark"]


@contextlib.contextmanager
def chromium(folder: Path) -> Generator[Chrome]:
    """Run Debian's Chromium with a profile of its own in `folder`; it logs every request and every word of its console."""
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
        f"--user-data-dir={folder / 'profile'}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver_log = str(folder / "chromedriver.log")
    environment = {**os.environ, "TZ": "Europe/Zurich"}
    service = ChromeService(str(program("chromedriver", "chromium-driver")), log_output=driver_log, env=environment)
    driver = Chrome(options=options, service=service)
    try:
        driver.set_script_timeout(30)
        yield driver
    finally:
        driver.quit()


def viewport(driver: Chrome, width: int, height: int, *, scale: float = 1.0, mobile: bool = False) -> None:
    """Set the size of the page in CSS pixels."""
    size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def prefer(driver: Chrome, scheme: Scheme) -> None:
    """Set what the system's theme is, and that motion is wanted."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def requests_of(driver: Chrome) -> list[dict[str, Any]]:  # Any: DevTools' JSON
    """Return the requests that pages sent since this was last asked."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [m["params"]["request"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def said(driver: Chrome) -> list[str]:
    """Return what the browser's console says since this was last asked: errors, warnings, violations."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")]
