// The sections that tell what happens now: status, traffic, latency, the ladder, routes.

import { chart, spark } from "./charts.js";
import { showBudgets, showClients, showRecent, showSelftest } from "./details.js";
import { badge, code, count, empty, hint, make, ms, plural, put, rate, short, span, table, WORDS } from "./page.js";

export { showPolicy } from "./details.js";

const OUTCOMES = {
  answered: ["answered", "with what the policy lets out"],
  refused: ["refused by policy", "the ladder or a budget: 403, 429"],
  bad: ["bad requests", "unreadable, outside the domain, unknown key, closed endpoint: 4xx"],
  model: ["model failed", "no answer, or one that was withheld: 502, 504"],
  closed: ["failed closed", "Guard or its state could not do its work: 500, 503"],
  left: ["client left", "before there was an answer"],
};
const STEPS = {
  allow: "answered by the policy's defences",
  alert: "answered alike; told to operators",
  degrade: "answered with less, silently",
  label_only: "a budget is spent: labels without scores",
  throttle: "429 above a rate",
  deny: "403, or 429 for a spent budget",
};

const body = (id) => document.querySelector(`#${id} > .body`);
const sum = (values) => values.reduce((total, value) => total + value, 0);

/** Show everything but the policy. */
export function show(found) {
  showStatus(found);
  showTraffic(found.traffic);
  showLatency(found.latency, found.traffic.ages_s);
  showLadder(found);
  showRoutes(found.routes);
  showClients(body("clients"), found);
  showBudgets(body("budgets"), found);
  showRecent(body("recent"), found);
  showSelftest(body("selftest"), found);
}

/** Return what holds for how many clients, such as `1 denied, 2 degraded`; empty for nobody. */
function standing(found) {
  const past = { deny: "denied", throttle: "throttled", degrade: "degraded", alert: "alerted" };
  return Object.entries(past).filter(([action]) => found.evidence.standing[action] > 0)
    .map(([action, word]) => `${count(found.evidence.standing[action])} ${word}`).join(", ");
}

function attack(found) {
  const { degrade, throttle, deny } = found.evidence.standing;
  if (!found.routes.some((route) => route.detection)) return { kind: "plain", text: "Not watched", why: "no route has detectors" };
  const who = standing(found) && `${standing(found)}, of ${plural(found.evidence.watched, "client")} watched`;
  if (degrade + throttle + deny > 0) return { kind: "bad", text: "Under way", why: who };
  if (who !== "") return { kind: "warn", text: "Suspected", why: who };
  return { kind: "good", text: "None seen", why: `${plural(found.evidence.watched, "client")} watched` };
}

/** Return the state of things in a sentence, which is spoken when it changes. */
export function spoken(found) {
  const { policy, ready } = found;
  const mode = policy.mode === "shadow" ? "Shadow: nothing is enforced." : "Enforcing.";
  return `${mode} ${ready.ready ? "Ready" : "Not ready"}. Attack: ${attack(found).text.toLowerCase()}.`;
}

const MARKS = { good: "✓", warn: "△", bad: "!", plain: "–", shadow: "◌" };

function tile(name, kind, text, why) {
  const sign = make("span", { class: "sign", "aria-hidden": "true" }, MARKS[kind]);
  return make("div", { class: `tile ${kind}` }, make("h2", {}, name), make("p", { class: "what" }, sign, ` ${text}`), make("p", { class: "why" }, why));
}

function showStatus(found) {
  const { policy, ready, counters } = found;
  const shadow = policy.mode === "shadow";
  const banner = document.getElementById("shadow");
  banner.hidden = !shadow && policy.shadow.length === 0;
  banner.textContent = shadow
    ? "SHADOW. Guard decides, counts and logs, and changes nothing: clients get what the model says."
    : `${plural(policy.shadow.length, "route")} in SHADOW, not protected: ${policy.shadow.join(", ")}`;
  document.body.classList.toggle("in-shadow", shadow);
  const wrong = Object.entries(ready.checks).filter(([, why]) => why !== "").map(([name, why]) => `${name === "upstream" ? "model" : name}: ${why}`);
  const danger = attack(found);
  const troubles = [
    [counters.state_errors, "calls to the state failed"], [counters.audit_dropped, "audit entries lost"],
    [counters.recording_dropped, "rows not recorded"], [counters.reloads_failed, "reloads failed"],
  ].filter(([n]) => n > 0).map(([n, what]) => `${count(n)} ${what}`);
  const what = [policy, ready, danger, troubles, found.version, found.crowd ?? "", Math.floor(found.uptime_s / 60)];
  put(document.getElementById("status"), what, () => [
    shadow
      ? tile("Mode", "shadow", "Shadow", "nothing is enforced")
      : tile("Mode", policy.shadow.length ? "warn" : "good", "Enforcing", policy.shadow.length ? `but ${plural(policy.shadow.length, "route")} in shadow` : "every route"),
    tile("Attack", danger.kind, danger.text, shadow && danger.kind !== "good" ? `${danger.why} (would be)` : danger.why),
    tile("Ready", ready.ready ? "good" : "bad", ready.ready ? "Ready" : "Not ready", wrong.join("; ") || "state and model answer"),
    tile("Policy", policy.warnings ? "warn" : "good", policy.name, make("span", {}, code(policy.digest.slice(0, 12), policy.digest), policy.warnings ? `, ${plural(policy.warnings, "warning")}` : "")),
    tile("Since start", troubles.length ? "warn" : "good", `up ${span(found.uptime_s)}`, `${troubles.join("; ") || "nothing lost, nothing failed"}; version ${found.version}`),
    found.crowd === undefined ? null : make("p", { class: "hint wide" }, "Nearly every request comes from one address, ", code(found.crowd), ": with an ingress in front, name it in ", code("trusted_proxies"), "."),
  ].filter((child) => child !== null));
}

function figures(...pairs) {
  return make("dl", { class: "figures" }, ...pairs.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

/** Return a place in a section that keeps what is put there between looks. */
function part(holder, name) {
  const found = holder.querySelector(`:scope > .part-${name}`);
  if (found !== null) return found;
  const made = make("div", { class: `part-${name}` });
  holder.append(made);
  return made;
}

function showTraffic(traffic) {
  const holder = body("traffic");
  const names = Object.keys(OUTCOMES);
  const total = sum(names.map((name) => traffic.minute[name]));
  const seconds = Math.min(60, traffic.ages_s.length * traffic.every_s) || 1;
  const other = traffic.ages_s.map((_, at) => sum(names.slice(1).map((name) => traffic.rates[name][at])));
  put(part(holder, "chart"), [traffic.ages_s.length, traffic.rates], () => {
    const share = total ? `${short((100 * traffic.minute.answered) / total)}%` : "no request";
    return [
      figures(["requests, last minute", rate(total / seconds)], ["answered", share], ["since start", count(sum(Object.values(traffic.total)))]),
      chart("Requests a second over the last minutes",
        `Now ${rate(traffic.rates.answered.at(-1) ?? 0)} answered and ${rate(other.at(-1) ?? 0)} not answered; at most ${rate(Math.max(0, ...traffic.rates.answered))} answered and ${rate(Math.max(0, ...other))} not answered. The table below has the figures by outcome.`,
        [{ name: "answered", kind: "plain", values: traffic.rates.answered }, { name: "not answered", kind: "alarm", values: other }],
        traffic.ages_s, rate),
    ];
  });
  const rows = names.map((name) => ({ name, values: traffic.rates[name], ages: traffic.ages_s, minute: traffic.minute[name] / seconds, total: traffic.total[name] }));
  table(part(holder, "table"), "Requests by outcome", [
    ["outcome", "words", (row) => [make("span", { title: OUTCOMES[row.name][1] }, OUTCOMES[row.name][0])]],
    ["curve", "curves", (row) => spark(row.values, row.ages)],
    ["last minute", "number", (row) => rate(row.minute)],
    ["since start", "number", (row) => count(row.total)],
  ], rows, (row) => row.name, true);
}

function showLatency(latency, ages) {
  const holder = body("latency");
  put(part(holder, "chart"), latency, () => [
    figures(["Guard, median", ms(latency.added.p50_ms)], ["Guard, 99th percentile", ms(latency.added.p99_ms)], ["model, median", ms(latency.upstream.p50_ms)]),
    chart("Time that Guard adds to a request, over the last minutes",
      latency.added.n === 0 ? "There was no request in the last minute." : `In the last minute the median was ${ms(latency.added.p50_ms)} and the 99th percentile ${ms(latency.added.p99_ms)}. The table below has the figures.`,
      [{ name: "median", kind: "plain", values: latency.p50_ms }, { name: "99th percentile", kind: "dashed", values: latency.p99_ms }], ages, ms),
  ]);
  table(part(holder, "table"), "Latency over the last minute", [
    ["last minute", "words", (row) => row.name],
    ["median", "number", (row) => ms(row.found.p50_ms)],
    ["95th", "number", (row) => ms(row.found.p95_ms)],
    ["99th", "number", (row) => ms(row.found.p99_ms)],
    ["requests", "number", (row) => count(row.found.n)],
  ], [{ name: "Guard", found: latency.added }, { name: "the model", found: latency.upstream }], (row) => row.name, true);
  put(part(holder, "note"), 0, () => [hint("Interpolated from the buckets of ", code("guard_added_latency_seconds"), ".")]);
}

function showLadder(found) {
  const watched = found.routes.some((route) => route.detection);
  const rows = Object.keys(STEPS).map((name) => ({
    name,
    clients: name === "allow" ? found.evidence.watched - sum(Object.values(found.evidence.standing)) : found.evidence.standing[name] ?? null,
    requests: found.traffic.verdicts[name],
  }));
  const holder = body("ladder");
  table(part(holder, "table"), "Clients on each step, and requests", [
    ["step", "words", (row) => [badge(row.name), make("span", { class: "sub" }, STEPS[row.name])]],
    ["clients now", "number", (row) => (row.clients === null ? "–" : count(row.clients))],
    ["requests, last minute", "number", (row) => count(row.requests)],
  ], rows, (row) => row.name, true);
  put(part(holder, "note"), [watched, found.policy.mode], () => [
    watched ? null : empty("No route has detectors, so nobody is placed on the ladder. ", code("detectors: default"), " and ", code("ladder:"), " in the policy switch it on."),
    found.policy.mode === "shadow" ? hint("In shadow these are the steps that would be; every request was answered as the model said.") : null,
  ].filter((child) => child !== null));
}

function showRoutes(routes) {
  const strict = ["deny", "throttle", "degrade", "alert"];
  table(body("routes"), "Every route and what it does now", [
    ["route", "words name", (row) => row.name],
    ["mode", "words", (row) => (row.mode === "shadow" ? make("strong", { class: "shadowed" }, "◌ shadow") : "enforce")],
    ["answered", "number", (row) => rate(row.rates.answered)],
    ["not answered", "number", (row) => rate(sum(Object.entries(row.rates).filter(([name]) => name !== "answered").map(([, n]) => n)))],
    ["added, 95th", "number", (row) => ms(row.added.p95_ms)],
    ["on the ladder", "words", (row) => {
      const held = strict.filter((action) => row.ladder[action]).map((action) => badge(action, `${count(row.ladder[action])} ${WORDS[action] ?? action}`));
      return held.length ? held : row.detection ? "nobody" : "no detectors";
    }],
    ["profile", "words", (row) => {
      if (!row.detection) return "–";
      if (row.profile === null) return make("span", { title: "Detection looks only at how queries relate; guard calibrate makes a profile of honest traffic." }, "none");
      const stale = row.drift !== null && row.drift > 0.25;
      const drift = row.drift === null ? "" : `drift ${row.drift.toFixed(2)}${stale ? ": stale, calibrate again" : ""}`;
      return [row.profile, drift ? make("span", { class: stale ? "sub warn-text" : "sub" }, drift) : null].filter((child) => child !== null);
    }],
  ], routes, (row) => row.name);
  const without = routes.filter((route) => route.detection && route.profile === null).length;
  const note = document.querySelector("#routes > .note") ?? document.getElementById("routes").appendChild(make("div", { class: "note" }));
  put(note, without, () => (without ? [hint(`${plural(without, "route")} without a profile: detection looks only at how queries relate, not at whether they look like your users'. Record traffic with `, code("guard serve --record"), ", then ", code("guard calibrate"), ".")] : []));
}
