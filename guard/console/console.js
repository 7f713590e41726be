// Asks Guard what happens, every two seconds while somebody looks, and says when it does not answer.

import { code, make, plural, when } from "./page.js";
import { show, showPolicy, spoken } from "./sections.js";

const EVERY_MS = 2000;
const LONGEST_MS = 30000;
const PATIENCE_MS = 8000;
const TOKEN = "guard-admin-token";
const THEME = "guard-theme";
const at = (id) => document.getElementById(id);

let token = sessionStorage.getItem(TOKEN);
let timer = 0;
let asking = false;
let paused = false;
let failures = 0;
let latest = null;
let since = null;
let revision = "";

/** Ask Guard for something; throws where there is no answer in time. */
function ask(path, method = "GET") {
  const headers = token === null ? {} : { authorization: `Bearer ${token}` };
  // Relative, so that the page also works behind a prefix, as `kubectl proxy` puts before it.
  return fetch(path, { method, headers, cache: "no-store", credentials: "omit", redirect: "error", signal: AbortSignal.timeout(PATIENCE_MS) });
}

async function look() {
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  try {
    const answer = await ask("live");
    if (answer.status === 401) {
      gate();
      return;
    }
    if (!answer.ok) throw new Error(await problem(answer));
    const document_ = await answer.json();
    await policy(document_.policy.revision);
    heard(document_);
  } catch (error) {
    missed(error);
  } finally {
    asking = false;
  }
  if (at("gate").hidden) again(failures === 0 ? EVERY_MS : Math.min(LONGEST_MS, EVERY_MS * 2 ** failures));
}

function again(delay) {
  clearTimeout(timer);
  if (!document.hidden && !paused) timer = setTimeout(look, delay);
}

async function policy(wanted) {
  if (wanted === revision) return;
  const answer = await ask("live/policy");
  if (!answer.ok) throw new Error(await problem(answer));
  const words = await answer.json();
  showPolicy(words);
  revision = words.revision;
}

async function problem(answer) {
  try {
    return (await answer.json()).title ?? `it answered ${answer.status}`;
  } catch {
    return `it answered ${answer.status}`;
  }
}

function heard(found) {
  failures = 0;
  latest = found;
  since = null;
  at("gate").hidden = true;
  at("board").hidden = false;
  at("reload").disabled = at("pause").disabled = false;
  at("forget").hidden = token === null;
  at("stale").hidden = true;
  document.body.classList.remove("stale");
  at("updated").replaceChildren(paused ? "paused at " : "live, ", when(found.now_s));
  at("dot").className = paused ? "dot" : "dot on";
  show(found);
  say(spoken(found));
}

function missed(error) {
  failures += 1;
  since ??= new Date();
  const why = error.name === "TimeoutError" ? "it does not answer in time" : error instanceof TypeError ? "it cannot be reached" : error.message;
  const wait = Math.min(LONGEST_MS, EVERY_MS * 2 ** failures) / 1000;
  const old = latest === null ? [] : [" What is shown is from ", when(latest.now_s), " and stale."];
  at("stale").replaceChildren(make("strong", {}, `No answer from Guard: ${why}.`), ...old, ` Trying again every ${wait} s.`);
  at("stale").hidden = false;
  document.body.classList.add("stale");
  at("updated").replaceChildren("no answer since ", when(since.getTime() / 1000));
  at("dot").className = "dot off";
  say("No answer from Guard; what is shown is stale.");
}

/** Tell a screen reader, only what is new. */
function say(text) {
  if (at("spoken").textContent !== text) at("spoken").textContent = text;
}

/** Look at once, unless there is a reason not to. */
function wake() {
  if (at("gate").hidden && !paused) look();
}

function gate() {
  clearTimeout(timer);
  const wrong = token !== null;
  forget();
  at("gate").hidden = false;
  at("board").hidden = true;
  at("stale").hidden = true;
  at("reload").disabled = at("pause").disabled = true;
  at("updated").textContent = "waiting for the token";
  at("dot").className = "dot";
  at("gate-wrong").textContent = wrong ? "This is not the token of this Guard." : "";
  at("token").setAttribute("aria-invalid", String(wrong));
  at("token").focus();
}

function forget() {
  token = null;
  revision = "";
  sessionStorage.removeItem(TOKEN);
  at("forget").hidden = true;
}

function opened(event) {
  event.preventDefault();
  const given = at("token").value.trim();
  at("token").value = "";
  if (!/^[\x21-\x7e]+$/.test(given)) {
    at("gate-wrong").textContent = "A token is letters, digits and signs, without spaces.";
    return;
  }
  token = given;
  sessionStorage.setItem(TOKEN, token);
  at("gate").hidden = true;
  at("main").focus();
  look();
}

async function reload() {
  const box = at("reloaded");
  const button = at("reload");
  button.setAttribute("aria-disabled", "true");
  box.hidden = false;
  box.className = "notice";
  box.replaceChildren("Reading the policy again.");
  try {
    const answer = await ask("reload", "POST");
    if (answer.status === 401) {
      gate();
      box.hidden = true;
      return;
    }
    const found = answer.headers.get("content-type")?.includes("problem") ? { ok: false, problems: [await problem(answer)] } : await answer.json();
    if (found.ok) box.replaceChildren("In force: policy ", make("strong", {}, found.name), ", digest ", code(found.digest.slice(0, 12), found.digest), ".");
    else {
      box.className = "notice bad";
      const items = found.problems.map((text) => make("li", {}, text));
      box.replaceChildren(make("strong", {}, `Not reloaded, the old policy stays in force: ${plural(items.length, "problem")}.`), make("ul", {}, ...items));
    }
    look();
  } catch (error) {
    box.className = "notice bad";
    box.replaceChildren(`Not reloaded: no answer from Guard (${error.message}).`);
  } finally {
    button.removeAttribute("aria-disabled");
  }
}

function pause() {
  paused = !paused;
  at("pause").textContent = paused ? "Resume" : "Pause";
  if (!paused) {
    look();
    return;
  }
  clearTimeout(timer);
  if (latest !== null && failures === 0) heard(latest);
}

const NEXT = { system: "light", light: "dark", dark: "system" };

function theme(name) {
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  at("theme").textContent = `Theme: ${name}`;
  try {
    localStorage.setItem(THEME, name);
  } catch {
    // A browser that stores nothing shows the system's at the next visit.
  }
}

theme(Object.hasOwn(NEXT, localStorage.getItem(THEME)) ? localStorage.getItem(THEME) : "system");
at("theme").addEventListener("click", () => theme(NEXT[document.documentElement.dataset.theme ?? "system"]));
at("pause").addEventListener("click", pause);
at("only").addEventListener("change", () => latest !== null && show(latest));
at("reload").addEventListener("click", () => at("reload").hasAttribute("aria-disabled") || reload());
at("forget").addEventListener("click", () => {
  forget();
  location.reload(); // with the token go all figures
});
at("gate-form").addEventListener("submit", opened);
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : wake()));
window.addEventListener("online", wake);
look();
