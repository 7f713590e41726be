"""The console in a real Chromium, before a real Guard with customers, a thief and somebody who makes mistakes."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import pytest
from selenium.webdriver.common.keys import Keys

from tests.support.axe import RUN, axe
from tests.support.browser import Browser, Scheme, chromium
from tests.support.console import CUSTOMERS, NASTY, THIEF, Stage, honest, stage
from tests.support.contrast import CONTRASTS
from tests.support.processes import free_port

pytestmark = pytest.mark.real

SECTIONS = ("traffic", "latency", "ladder", "routes", "clients", "budgets", "recent", "policy", "selftest")
TOKEN = "a-token-of-24-characters"
LIVE = "document.querySelector('#updated').textContent.startsWith('live')"
BEYOND_PANEL = """
const beyond = (panel, one) => one.getBoundingClientRect().right > panel.getBoundingClientRect().right;
return [...document.querySelectorAll(".panel, .tile")].flatMap((panel) => [...panel.querySelectorAll("*")]
    .filter((one) => one.checkVisibility() && !one.parentElement.closest(".scroll, pre, .unseen") && beyond(panel, one))
    .map((one) => `${panel.id}: ${one.tagName} ${one.textContent.slice(0, 40)}`));
"""
Json = Any  # Any: JSON


class Scene(NamedTuple):
    """What the tests share: Guard under attack, and a browser that looks at it."""

    stage: Stage
    browser: Browser

    def open(self) -> None:
        self.browser.open(f"{self.stage.guard.admin}/")
        self.browser.until(LIVE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("console")


@pytest.fixture(scope="module")
def browser(folder: Path) -> Generator[Browser]:
    with chromium(folder) as running:
        yield running


@pytest.fixture(scope="module")
def attacked(folder: Path) -> Generator[Stage]:
    """Run a Guard that has seen customers, a theft, mistakes and the other routes."""
    report = folder / "report.json"
    report.write_text(json.dumps(a_report()))
    with stage(folder, "--selftest-report", str(report)) as running:
        running.traffic.customers()
        running.traffic.theft()
        running.traffic.mistakes()
        running.traffic.others()
        yield running


@pytest.fixture
def scene(attacked: Stage, browser: Browser) -> Generator[Scene]:
    browser.viewport(1440, 900)
    browser.prefer("light")
    made = Scene(attacked, browser)
    made.open()
    yield made
    browser.js("localStorage.clear()")


def a_report() -> Json:
    figure = {"value": 0.25, "low": 0.2, "high": 0.3}
    attack = {
        "name": "copy",
        "title": f"copy {NASTY}",
        "victim": "digits",
        "metric": "surrogate_l1",
        "verdict": "held",
        "reason": "",
        "queries": 650,
        "undefended": {**figure, "value": 0.0},
        "defended": figure,
        "adaptive": {**figure, "value": 0.125},
        "floors": {"zero_query": {**figure, "value": 0.5}},
    }
    gate = {"subject": "copy", "metric": "surrogate_l1", "bound": "min", "limit": 0.05, "value": 0.125, "held": True}
    lost = {"subject": "utility", "metric": "mean_l1", "bound": "max", "limit": 0.01, "value": 0.02, "held": False}
    return {
        **{"policy": "another", "digest": "ab" * 32, "started": "2026-11-26T09:00:00+00:00", "target": "lab"},
        **{"route": "digits", "mode": "default", "passed": False, "attacks": [attack], "gates": [gate, lost]},
        "utility": [],
    }


def told(stage: Stage, path: str) -> Json:
    with urlopen(f"{stage.guard.admin}{path}", timeout=10) as answer:
        return json.load(answer)


def counted(stage: Stage, family: str, **labels: str) -> float:
    """Return the sum of a metric over the labels that are not given."""
    with urlopen(f"{stage.guard.admin}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    wanted = [f'{name}="{value}"' for name, value in labels.items()]
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.startswith(f"{family}{{") and all(w in line for w in wanted)
    )


def number(text: str) -> int:
    found = re.search(r"[\d,]+", text)
    assert found is not None, text
    return int(found[0].replace(",", ""))


def clean(browser: Browser, url: str) -> None:
    """Say that the browser had nothing to complain of, and that everything came from one place."""
    assert browser.said() == []
    sent = browser.requests()
    assert sent
    assert [one for one in sent if not one.startswith(f"{url}/")] == []


def test_every_section_is_filled_with_what_guard_counted(scene: Scene) -> None:
    page, run = scene.browser, scene.stage
    asked = len(run.traffic.statuses)
    page.until("[...document.querySelectorAll('#traffic dd')].at(-1)?.innerText === arguments[0]", str(asked))
    for section in SECTIONS:
        assert len(page.text(f"#{section} .body")) > 40, section

    outcomes = {row["outcome"]: number(row["since start"]) for row in page.table("traffic")}
    assert outcomes["answered"] == counted(run, "guard_requests_total", outcome="ok") == run.traffic.statuses.count(200)
    assert outcomes["refused by policy"] == counted(run, "guard_requests_total", outcome="denied")
    assert outcomes["bad requests"] == sum(run.traffic.statuses.count(status) for status in (401, 422))

    latency = {row["last minute"]: row for row in page.table("latency")}
    assert number(latency["Guard"]["requests"]) == asked == counted(run, "guard_added_latency_seconds_count")
    assert re.fullmatch(r"[\d.]+ (ms|µs)", latency["Guard"]["median"])

    ladder = {row["step"].split()[1]: row for row in page.table("ladder")}
    assert number(ladder["deny"]["clients now"]) == counted(run, "guard_ladder_clients", action="deny") == 1
    assert number(ladder["deny"]["requests, last minute"]) == counted(run, "guard_verdicts_total", action="deny")
    assert page.text("#status .bad .what").endswith("Under way")

    routes = {row["route"]: row for row in page.table("routes")}
    assert list(routes) == ["fraud-scoring", "pricing", "patients"]
    assert (routes["pricing"]["mode"], routes["pricing"]["profile"]) == ("◌ shadow", "none")
    assert "1 deny" in routes["fraud-scoring"]["on the ladder"]
    assert "pricing" in page.text("#shadow")

    policy = told(run, "/policy")
    assert policy["digest"] in page.text("#policy")
    for sentence in policy["routes"][2]["privacy"]:
        assert sentence in page.text("#policy blockquote")
    page.js("document.querySelectorAll('#policy details').forEach((one) => one.open = true)")
    assert "epsilon: 8" in page.text("#policy pre")
    assert policy["routes"][0]["detection"]["unseen"] in page.text("#policy")
    clean(page, run.guard.admin)


def test_clients_and_budgets_are_those_of_the_clients_page_under_pseudonyms(scene: Scene) -> None:
    page, run = scene.browser, scene.stage
    seen = {client["pseudonym"]: client for client in told(run, "/clients")["clients"]}
    names = {pseudonym: client["name"] for pseudonym, client in seen.items()}
    first = page.table("clients")[0]
    assert names[first["client"].split()[0]] == THIEF
    evidence = seen[first["client"].split()[0]]["evidence"][0]
    assert float(first["evidence, log10 e"]) == pytest.approx(evidence["log10_e"]["any"], abs=0.06)
    assert all(signal in first["detectors that spoke"] for signal in evidence["spoke"])
    assert first["standing"].startswith("■ deny until")

    page.until("document.querySelector('#budgets .note').innerText.includes('not read yet') === false")
    budgets = page.table("budgets")
    privacy = next(b for c in seen.values() for b in c["budgets"] if b["ledger"] == "patients")
    assert budgets[0]["budget"] == "privacy"
    assert number(budgets[0]["answers left"]) == privacy["answers_left"]
    shares = [int(row["share left"].rstrip("%")) for row in budgets if row["whose"].startswith("client")]
    assert shares == sorted(shares)
    for row in budgets:
        if row["whose"].startswith("client") and row["route"] == "fraud-scoring":
            client = seen[row["whose"].split()[1]]
            expected = next(
                b for b in client["budgets"] if b["ledger"] == "fraud-scoring" and b["budget"].startswith("rows/c")
            )
            assert number(row["answers left"]) == expected["answers_left"]

    whole = page.js("return document.documentElement.outerHTML")
    for name in (*CUSTOMERS, THIEF):
        assert not re.search(rf"\b{name}\b", whole)


def test_it_follows_what_happens_without_being_loaded_again(scene: Scene) -> None:
    page, run = scene.browser, scene.stage
    page.js("window.mark = document.querySelector('#traffic table')")
    before = len(run.traffic.statuses)
    run.traffic.customers(CUSTOMERS[:3], 2)
    page.until("[...document.querySelectorAll('#traffic dd')].at(-1).innerText === arguments[0]", str(before + 6))
    assert page.js("return window.mark === document.querySelector('#traffic table')")
    latest = page.table("recent")[0]
    assert (latest["status"], latest["rows"], latest["verdict"]) == ("200", "8", "○ allow")
    assert page.js("return document.querySelector('#recent time').title").endswith(" UTC")


def test_what_was_not_allowed_can_be_seen_by_itself(scene: Scene) -> None:
    page = scene.browser
    page.js("document.getElementById('only').click()")
    verdicts = {(row["verdict"], row["outcome"]) for row in page.table("recent")}
    assert ("■ deny", "denied") in verdicts
    assert ("○ allow", "ok") not in verdicts


def test_everything_is_reached_by_keyboard_alone(scene: Scene) -> None:
    page = scene.browser
    wanted = page.js(
        """return [...document.querySelectorAll("a, button, input, summary, [tabindex='0']")]
               .filter((e) => e.checkVisibility() && !e.disabled && !e.closest('#gate')).length"""
    )
    page.press(Keys.TAB)
    assert page.focused() == "Skip to what happens now"
    assert page.js("return document.activeElement.getBoundingClientRect().top") >= 0
    walked: list[str] = []
    for _ in range(wanted - 1):
        page.press(Keys.TAB)
        style = page.js("const s = getComputedStyle(document.activeElement); return [s.outlineStyle, s.outlineWidth]")
        assert style == ["solid", "3px"], page.focused()
        walked.append(page.focused())
    assert walked[:3] == ["pause", "reload", "theme"]
    assert len(set(walked)) == wanted - 1
    assert "The last decisions, newest first" in walked
    assert "The whole policy as resolved, presets and defaults filled in" in walked

    scene.open()
    page.press(Keys.TAB, Keys.ENTER)
    assert page.focused() == "main"
    page.js("document.getElementById('theme').focus()")
    for shown, ground in (("light", 243), ("dark", 13), ("system", 243)):
        page.press(Keys.ENTER)
        assert page.text("#theme") == f"Theme: {shown}"
        assert page.js("return getComputedStyle(document.body).backgroundColor").startswith(f"rgb({ground},")
    page.js("document.getElementById('pause').focus()")
    page.press(Keys.SPACE)
    assert page.text("#pause") == "Resume"
    page.until("document.querySelector('#updated').textContent.startsWith('paused')")
    page.requests()
    page.press(Keys.SPACE)
    page.until(LIVE)
    assert any(url.endswith("/live") for url in page.requests())


def test_reload_says_what_is_in_force_or_what_is_wrong(scene: Scene) -> None:
    page, file = scene.browser, scene.stage.policy
    sound = file.read_text()
    page.js("document.getElementById('reload').focus()")
    page.press(Keys.ENTER)
    page.until("document.querySelector('#reloaded').innerText.startsWith('In force: policy bank')")
    try:
        file.write_text(sound.replace("decimals: 2", "decimal: 2"))
        page.press(Keys.ENTER)
        page.until("document.querySelector('#reloaded').className.includes('bad')")
        assert "the old policy stays in force" in page.text("#reloaded")
        assert "decimal" in page.text("#reloaded li")
    finally:
        file.write_text(sound)
    page.press(Keys.ENTER)
    page.until("document.querySelector('#reloaded').innerText.startsWith('In force: policy bank')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_in_both_themes(scene: Scene, scheme: Scheme) -> None:
    page = scene.browser
    page.prefer(scheme)
    page.js("document.querySelectorAll('details').forEach((one) => one.open = true)")
    found = page.js(CONTRASTS)
    assert len(found) > 300
    assert [one for one in found if one[0] < 4.5] == []
    page.js("document.querySelector('h1').style.color = getComputedStyle(document.body).backgroundColor")
    page.js("document.querySelector('.foot').style.color = getComputedStyle(document.body).backgroundColor")
    assert [one for one in page.js(CONTRASTS) if one[0] < 4.5], "the measure does not see what cannot be read"
    page.js("document.getElementById('theme').click()")
    if scheme == "dark":
        assert page.js("return getComputedStyle(document.body).backgroundColor") == "rgb(243, 245, 248)"


def test_nothing_is_wider_than_a_phone_or_a_page_at_twice_its_size(scene: Scene) -> None:
    page = scene.browser
    page.js("document.querySelectorAll('details').forEach((one) => one.open = true)")
    for width in (320, 390, 720, 1024, 1280, 1440):
        page.viewport(width, 800, mobile=width < 400)
        assert page.js("return document.documentElement.scrollWidth") <= width
        assert page.js(BEYOND_PANEL) == []
    page.viewport(720, 450)  # what a window of 1440 shows at 200%
    page.js("document.documentElement.style.fontSize = '200%'")
    assert page.js("return document.documentElement.scrollWidth") <= 720
    page.viewport(390, 800, mobile=True)
    page.js("document.documentElement.style.fontSize = ''")
    assert page.js("return getComputedStyle(document.querySelector('#clients td'), '::before').content") == '"standing"'
    assert page.js("return [...document.querySelectorAll('#clients [role]')].map((e) => e.role)")[1:3] == [
        "table",
        "rowgroup",
    ]


def test_motion_stops_for_who_does_not_want_it(scene: Scene) -> None:
    page = scene.browser
    assert page.js("return getComputedStyle(document.getElementById('dot')).animationName") == "beat"
    page.prefer("light", motion=False)
    assert page.js("return getComputedStyle(document.getElementById('dot')).animationName") == "none"


@pytest.mark.parametrize("width", [1440, 320])
def test_axe_finds_nothing_wrong(scene: Scene, width: int) -> None:
    page = scene.browser
    page.viewport(width, 900)
    page.js("document.querySelectorAll('details').forEach((one) => one.open = true)")
    page.js(axe())
    assert page.js(RUN) == []
    page.js("document.querySelector('#only').closest('label').replaceWith(document.querySelector('#only'))")
    assert any("label" in found for found in page.js(RUN)), "axe does not see a control without a name"


def test_names_that_look_like_markup_stay_texts(scene: Scene) -> None:
    page = scene.browser
    page.js("document.querySelectorAll('details').forEach((one) => one.open = true)")
    assert NASTY in page.text("#policy")
    assert f"copy {NASTY}" in page.text("#selftest")
    # A whole document of such names, as if Guard could be made to send one.
    page.js(
        """const live = await (await fetch("live")).json(), words = await (await fetch("live/policy")).json();
           const all = (entries) => Object.fromEntries(entries.map(([name, value]) => [name, nasty(value)]));
           const nasty = (value) => typeof value === "string" ? arguments[0] : Array.isArray(value) ? value.map(nasty)
               : value && typeof value === "object" ? all(Object.entries(value)) : value;
           const {show, showPolicy} = await import("/console/sections.js");
           document.getElementById("pause").click();
           show({...nasty(live), selftest: {...nasty(live.selftest), started: "2026-11-26T09:00:00Z"}});
           showPolicy(nasty(words));""",
        NASTY,
    )
    assert page.text("body").count(NASTY) > 50
    assert page.js("return document.title") == "Guard console"
    assert page.js("return [...document.images].every((image) => image.src.endsWith('/console/icon.svg'))")
    assert page.said() == []


def test_the_browser_itself_refuses_what_the_page_never_does(scene: Scene) -> None:
    page = scene.browser
    page.js(
        """const refused = window.refused = [];
           const attempt = (what) => { try { what(); } catch (error) { refused.push(error.name); } };
           document.addEventListener("securitypolicyviolation", (event) => refused.push(event.effectiveDirective));
           const script = document.createElement("script");
           attempt(() => { script.textContent = "document.title = 'owned'"; document.body.append(script); });
           attempt(() => { document.querySelector("footer").innerHTML = "<b>x</b>"; });
           document.createElement("p").setAttribute("style", "color: red");
           fetch("https://example.org/").catch(() => 0);"""
    )
    page.until("window.refused.includes('connect-src')")
    refused = page.js("return window.refused")
    assert {"TypeError", "require-trusted-types-for", "connect-src", "style-src-attr"} <= set(refused)
    assert page.js("return document.title") == "Guard console"
    assert page.said(), "violations are not seen in the browser's log"


@pytest.fixture(scope="module")
def guarded_by_token(folder: Path) -> Generator[tuple[str, ExitStack, list[str], Path]]:
    """Yield the admin's address, what runs there, and how to run it again: shadow, a token, nothing asked yet."""
    aside = folder / "shadow"
    aside.mkdir()
    (aside / "token").write_text(TOKEN)
    port = free_port()
    options = ["--admin", f"127.0.0.1:{port}", "--admin-token-file", str(aside / "token")]
    with ExitStack() as running:
        yield f"http://127.0.0.1:{port}", running, options, aside


def test_a_token_is_asked_for_and_guard_may_go_and_come_back(
    browser: Browser, guarded_by_token: tuple[str, ExitStack, list[str], Path]
) -> None:
    url, running, options, aside = guarded_by_token
    run = running.enter_context(stage(aside, *options, mode="shadow"))
    browser.viewport(1440, 900)
    browser.open(f"{url}/")
    browser.until("document.activeElement.id === 'token'")
    browser.js(axe())
    assert browser.js(RUN) == []
    assert not browser.js("return document.querySelector('#board').checkVisibility()")
    browser.press("not the token at all", Keys.ENTER)
    assert "without spaces" in browser.text("#gate-wrong")
    browser.press("not-the-token-at-all", Keys.ENTER)
    browser.until("document.querySelector('#gate-wrong').innerText.includes('not the token')")
    browser.press(TOKEN, Keys.ENTER)
    browser.until(LIVE)
    assert TOKEN not in browser.js("return location.href + document.documentElement.outerHTML + document.cookie")
    assert TOKEN not in " ".join(browser.requests())

    assert browser.text("#shadow").startswith("SHADOW.")
    assert "nothing is enforced" in browser.text("#status")
    assert "nothing speaks against" in browser.text("#clients")
    assert "No request has been decided" in browser.text("#recent")
    assert "--selftest-report" in browser.text("#selftest")
    assert "guard calibrate" in browser.text("#routes")
    browser.js(axe())
    assert browser.js(RUN) == []
    assert [one for one in browser.js(CONTRASTS) if one[0] < 4.5] == []

    run.guard.running.send_signal(signal.SIGKILL)
    browser.until("document.querySelector('#stale').checkVisibility()")
    assert "cannot be reached" in browser.text("#stale")
    assert "stale" in browser.text("#stale")
    assert browser.text("#spoken").startswith("No answer")
    running.close()
    run = running.enter_context(stage(aside, *options, mode="shadow"))
    browser.until(LIVE)
    assert not browser.js("return document.querySelector('#stale').checkVisibility()")
    run.traffic.ask("customer1", honest(1, 1, 1))
    browser.until("document.querySelectorAll('#recent tbody tr').length === 1")

    browser.js("document.getElementById('reload').click()")
    browser.until("document.querySelector('#reloaded').innerText.startsWith('In force')")
    assert "customers" in browser.text("#routes")
    browser.js("document.getElementById('forget').click()")
    browser.until("document.activeElement.id === 'token'")
    assert browser.js("return sessionStorage.length") == 0
    assert "customers" not in browser.js("return document.body.textContent")


def test_a_hidden_page_asks_nothing(scene: Scene) -> None:
    page = scene.browser
    page.js("window.hidden = true; Object.defineProperty(document, 'hidden', {get: () => window.hidden})")
    page.js("document.dispatchEvent(new Event('visibilitychange')); performance.clearResourceTimings()")
    done = page.driver.execute_async_script(
        "setTimeout(() => arguments[0](performance.getEntriesByType('resource').length), 5000)"
    )
    assert done == 0
    page.js("window.hidden = false; document.dispatchEvent(new Event('visibilitychange'))")
    page.until("performance.getEntriesByType('resource').length > 0")
