"""Pictures of the console for the docs, of a real Guard under a real theft: `python -m tests.pictures.console`.

Takes three minutes: a self-test of the policy, and a minute and a half of traffic for the curves.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from tests.support.browser import Browser, Scheme, chromium
from tests.support.console import Stage, stage, steadily, write_policy
from tests.support.processes import ROOT

PICTURES: tuple[tuple[str, int, int, Scheme], ...] = (
    ("light", 1280, 1000, "light"),
    ("dark", 1280, 1000, "dark"),
    ("phone", 390, 1500, "light"),
)
_BEFORE_S, _AFTER_S = 70.0, 20.0


def main() -> None:
    """Make them."""
    with tempfile.TemporaryDirectory(prefix="guard-pictures-") as name:
        folder = Path(name)
        report = _selftest(folder)
        with stage(folder, "--selftest-report", str(report)) as run, chromium(folder) as browser:
            _happen(run, browser)


def _selftest(folder: Path) -> Path:
    """Attack the policy and return the report."""
    report = folder / "report.json"
    command = [sys.executable, "-m", "guard", "selftest", "--policy", str(write_policy(folder)), "--quick"]
    done = subprocess.run(
        [*command, "--report", f"json={report}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert report.exists(), done.stderr
    return report


def _happen(run: Stage, browser: Browser) -> None:
    run.traffic.customers()
    run.traffic.others()
    with steadily(run.traffic):
        time.sleep(_BEFORE_S)
        run.traffic.theft()
        run.traffic.mistakes()
        time.sleep(_AFTER_S)
        for name, width, height, scheme in PICTURES:
            browser.viewport(width, height, mobile=width < 400)
            browser.prefer(scheme, motion=False)
            browser.open(f"{run.guard.admin}/")
            browser.until("document.querySelector('#updated').textContent.startsWith('live')")
            if width > 400:
                browser.viewport(width, browser.js("return document.querySelector('#budgets').offsetTop"))
            _take(browser, name)
        browser.viewport(1280, 1000)
        browser.prefer("light", motion=False)
        browser.js("scrollTo(0, document.querySelector('#policy article:last-of-type').offsetTop)")
        _take(browser, "policy")


def _take(browser: Browser, name: str) -> None:
    """Write a picture of 256 colours, which is all that the page has."""
    file = ROOT / "docs" / "images" / f"console-{name}.png"
    browser.picture(file)
    with Image.open(file) as taken:
        taken.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
            file, optimize=True
        )
    print(f"{file.relative_to(ROOT)}: {os.path.getsize(file) // 1000} kB")


if __name__ == "__main__":
    main()
