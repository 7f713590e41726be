// The sections that tell who, how much is left, what was decided, under which policy, and what the self-test found.

import { bar } from "./charts.js";
import { badge, code, count, empty, hint, make, ms, plural, put, short, span, table, when, yaml } from "./page.js";

const who = (pseudonym) => code(pseudonym, pseudonym);

/** Show the clients that stand on the ladder, and those with the strongest evidence. */
export function showClients(holder, found) {
  const { top } = found.evidence;
  if (top.length === 0) {
    put(holder, ["empty", found.routes.some((route) => route.detection), found.evidence.watched], () => [
      found.routes.some((route) => route.detection)
        ? empty(`${plural(found.evidence.watched, "client")} watched, and nothing speaks against any of them. Evidence is looked at after every 16 queries of a client.`)
        : empty("Nobody is watched: no route has detectors."),
    ]);
    return;
  }
  table(holder, "Clients on the ladder, then by evidence", [
    ["client", "words", (row) => [who(row.client), row.group === null ? null : make("span", { class: "sub" }, "of group ", who(row.group)), row.source === "address" ? make("span", { class: "sub" }, "a bare address") : null].filter((child) => child !== null)],
    ["standing", "words", (row) => [badge(row.action), row.until_s === null ? null : make("span", { class: "sub" }, "until ", when(row.until_s))].filter((child) => child !== null)],
    ["evidence, log10 e", "number", (row) => [short(row.log10_e.any), bar(row.log10_e.any / 6, "alarm")]],
    ["of structure", "number", (row) => [short(row.log10_e.structure), bar(row.log10_e.structure / 6, "alarm")]],
    ["detectors that spoke", "words", (row) => {
      const spoke = row.spoke.map((one) => make("span", { class: "chip", title: `${one.tier} tier` }, `${one.signal} ${short(one.log10_e)}`, make("span", { class: "tier" }, ` ${one.tier}`)));
      if (row.offences) spoke.push(make("span", { class: "chip" }, `${plural(row.offences, "protocol offence")} this hour`));
      return spoke.length ? spoke : "none";
    }],
    ["route", "words at", (row) => row.routes.join(", ")],
    ["meter", "number", (row) => (row.meter === null ? "–" : short(row.meter))],
  ], top, (row) => `${row.client} ${row.routes.join(" ")}`);
  const section = holder.parentElement;
  const note = section.querySelector(":scope > .note") ?? section.appendChild(make("div", { class: "note" }));
  put(note, "note", () => [hint("Evidence over all signals, and of the structure tier alone, which may deny: log10 e of 2 is 100 to 1 against an honest client, 3 is 1,000 to 1; the bars end at 6. Who stands on the ladder comes first. Meter: how well a copy made from the answers would agree with the model, 0 to 1.")]);
}

/** Show the budgets with the least left. */
export function showBudgets(holder, found) {
  const { budgets } = found;
  const section = holder.parentElement;
  const note = section.querySelector(":scope > .note") ?? section.appendChild(make("div", { class: "note" }));
  if (budgets.lowest.length === 0) {
    const text = budgets.none ? "No route has a budget: whoever asks long enough gets it all. See budgets in the policy." : budgets.state ? `Nothing could be read: ${budgets.state}.` : "Nobody has been charged yet.";
    put(holder, text, () => [empty(text)]);
    note.hidden = true;
    return;
  }
  table(holder, "Budgets with the least left", [
    ["whose", "words", (row) => (row.per === "model" ? "everybody" : [`${row.per} `, who(row.of)])],
    ["budget", "words", (row) => [row.kind, row.shadow ? make("span", { class: "sub shadowed" }, "◌ shadow: only counted") : null].filter((child) => child !== null)],
    ["route", "words at", (row) => row.route],
    ["answers left", "number", (row) => {
      if (row.answers_left === null) return "known request by request";
      const text = [make("strong", {}, count(row.answers_left)), ` of ${count(row.answers)}`];
      if (row.closed) text.push(make("span", { class: "sub" }, "closed by the information meter"));
      return text;
    }],
    ["share left", "number", (row) => (row.answers_left === null ? "–" : [`${Math.floor(row.share_left * 100)}%`, bar(row.share_left, row.share_left < 0.1 ? "alarm" : "plain")])],
    ["when spent", "words", (row) => (row.then === "deny" ? badge("deny") : badge("label_only"))],
    ["begins anew", "words", (row) => (row.ends_s === null ? "never" : ["in ", span(row.ends_s - found.now_s), make("span", { class: "sub" }, when(row.ends_s))])],
  ], budgets.lowest.map((row) => ({ ...row, minute: row.ends_s === null ? 0 : Math.floor(found.now_s / 60) })), (row) => `${row.per} ${row.of} ${row.route} ${row.budget} ${row.shadow}`);
  note.hidden = false;
  const due = budgets.due ? ` ${plural(budgets.due, "client")} not read yet.` : "";
  put(note, [budgets.counters, due, budgets.state], () => [hint(`${plural(budgets.counters, "counter")} of ${plural(budgets.clients, "recent client")} known.${due}${budgets.state ? ` Not read anew: ${budgets.state}.` : ""} Everybody's budgets first, then groups', then clients'; the least left first.`)]);
}

/** Show the last decisions, newest first. */
export function showRecent(holder, found) {
  const only = document.getElementById("only").checked;
  const decisions = only ? found.recent_other : found.recent;
  if (decisions.length === 0 && only && found.recent.length > 0) {
    put(holder, "plain", () => [empty("Everything that was decided lately was plainly allowed.")]);
    return;
  }
  if (decisions.length === 0) {
    put(holder, "empty", () => [empty("No request has been decided since this Guard started. Point a client at the data listener.")]);
    return;
  }
  table(holder, "The last decisions, newest first", [
    ["time", "words", (row) => when(row.now_s)],
    ["verdict", "words", (row) => badge(row.verdict)],
    ["outcome", "words", (row) => row.outcome.replaceAll("_", " ")],
    ["status", "number", (row) => (row.status === 0 ? "–" : String(row.status))],
    ["client", "words", (row) => (row.client === null ? "not known" : who(row.client))],
    ["route", "words at", (row) => row.route],
    ["rows", "number", (row) => count(row.rows)],
    ["request id", "words id", (row) => code(row.id, row.id)],
  ], decisions, (row) => `${row.now_s} ${row.id} ${row.route} ${row.rows}`);
}

function folded(summary, ...children) {
  return make("details", {}, make("summary", {}, summary), ...children);
}

const items = (texts) => make("ul", {}, ...texts.map((text) => make("li", {}, text)));

/** Show the policy as resolved: what each route does, what it guarantees, and what it does not. */
export function showPolicy(words) {
  const holder = document.querySelector("#policy > .body");
  const open = new Set([...holder.querySelectorAll("details[open] > summary")].map((summary) => summary.textContent));
  const routes = words.routes.map((route) => make("article", { class: "route" },
    make("h3", {}, route.name, " ", route.mode === "shadow" ? make("strong", { class: "shadowed" }, "◌ shadow: not enforced") : make("span", { class: "sub inline" }, "enforce")),
    guarantee(route),
    folded(`What ${route.name} does, step by step`, make("ol", {}, ...route.steps.map((step) => make("li", {}, step))), items(route.endpoints)),
    route.detection === null ? hint("Nobody is watched here: no detectors.") : detection(route.name, route.detection)));
  const text = make("pre", { tabindex: "0", role: "region", "aria-label": "the policy as resolved" }, yaml(words.policy).trim());
  holder.replaceChildren(
    make("dl", { class: "facts" },
      ...[["name", words.name], ["mode", words.mode === "shadow" ? "◌ shadow" : "enforce"], ["digest", code(words.digest)], ["clients are known by", words.identity.join("; ")]]
        .map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)))),
    words.warnings.length ? make("div", { class: "warnings" }, make("h3", {}, `△ ${plural(words.warnings.length, "warning")}`), items(words.warnings)) : "",
    ...(routes.length > 6 ? [folded(`What the ${routes.length} routes do and guarantee`, ...routes)] : routes),
    folded("The whole policy as resolved, presets and defaults filled in", text));
  for (const details of holder.querySelectorAll("details")) details.open = open.has(details.querySelector("summary").textContent);
}

function guarantee(route) {
  if (route.privacy.length === 0) return hint("No differential privacy is claimed: what changes answers here is output perturbation.");
  return make("blockquote", {}, ...route.privacy.map((sentence) => make("p", {}, sentence)));
}

function detection(name, found) {
  const rules = found.ladder.map((rule) => make("li", {}, `${rule.when}, ${rule.level}: ${rule.does.join(", ")} for ${rule.hold}`));
  return make("div", {},
    hint(found.profile, "."),
    folded(`The ladder of ${name}, and what its levels mean`, make("ol", {}, ...rules), hint(found.levels_mean), items(found.levels_end), found.exceptions.length ? make("p", {}, "Exceptions:") : "", found.exceptions.length ? items(found.exceptions) : ""),
    folded(`What no detector on ${name} sees`, make("p", {}, found.unseen),
      found.off.length ? make("p", {}, "Detectors of the policy that do not run:") : "",
      found.off.length ? items(found.off.map((one) => `${one.detector}: ${one.why}`)) : ""));
}

const METRICS = (metric) => metric.replaceAll("_", " ");
const figure = (found) => (found === null || found.value === null ? "–" : precise(found.value));

function precise(n) {
  return Math.abs(n) < 5e-4 ? "0.000" : Math.abs(n) >= 100 ? count(n) : n.toFixed(3);
}

/** Show what the last self-test found. */
export function showSelftest(holder, found) {
  const report = found.selftest;
  put(holder, [report, found.policy.digest], () => {
    if (report === null) return [empty("No report: start Guard with ", code("--selftest-report FILE"), ", which ", code("guard selftest --report json=FILE"), " writes. It attacks your policy with real attacks and says what holds.")];
    if (report.problem !== undefined) return [make("p", { class: "notice bad" }, report.problem)];
    const same = report.digest === found.policy.digest;
    const { gates } = report;
    const gated = gates.passed + gates.failed + gates.unresolved > 0;
    const verdict = !gated ? badge("not gated", "no gates") : badge(report.passed ? "passed" : "failed", report.passed ? "passed" : report.partial ? "interrupted" : "not passed");
    const outcome = gated ? `${plural(gates.passed, "gate")} held, ${count(gates.failed)} not held, ${count(gates.unresolved)} unresolved.` : "The policy has no gates: the figures are measured, and held to no limit.";
    const rows = make("div", {});
    table(rows, "Attacks of the last self-test", [
      ["attack", "words", (row) => [row.title, make("span", { class: "sub" }, `on ${row.victim}, ${count(row.queries)} queries`)]],
      ["verdict", "words", (row) => [badge(row.verdict), row.reason ? make("span", { class: "sub" }, row.reason) : null].filter((child) => child !== null)],
      ["measured by", "words", (row) => METRICS(row.metric)],
      ["undefended", "number", (row) => figure(row.undefended)],
      ["through Guard, strongest attacker", "number", (row) => make("strong", {}, figure(row.adaptive ?? row.defended))],
      ["floors", "words at", (row) => Object.entries(row.floors).map(([name, one]) => make("span", { class: "sub" }, `${METRICS(name)} ${figure(one)}`))],
    ], report.attacks, (row) => row.name + row.victim);
    return [
      make("p", { class: "verdict" }, verdict, ` ${outcome} `, when(Date.parse(report.started) / 1000, true), `, ${report.mode}, against ${report.target}, route ${report.route}.`),
      make("p", { class: same ? "hint" : "notice warn" }, same ? "It tested the policy that is in force. " : "△ It tested another policy than the one in force: ", code(report.digest.slice(0, 12), report.digest), same ? "" : `, named ${report.policy}. Run guard selftest again.`),
      report.failed.length ? make("div", {}, make("h3", {}, "Gates that do not hold"), items(report.failed.map((gate) => `${METRICS(gate.subject)}: ${METRICS(gate.metric)} is ${gate.value === null ? "unknown" : precise(gate.value)}, and must be at ${gate.bound === "min" ? "least" : "most"} ${precise(gate.limit)}${gate.reason ? ` (${gate.reason})` : ""}`))) : "",
      rows,
      report.utility.length ? make("div", {}, make("h3", {}, "What honest users pay"), items(report.utility.map((one) => `${one.victim}: top class changed for ${(100 * one.top1_changed).toFixed(2)}% of rows, scores moved by ${precise(one.mean_l1)} (mean L1), ${ms(one.added_p50_ms)} added`))) : "",
    ];
  });
}
