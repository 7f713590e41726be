// Building blocks of the page. Whatever comes from Guard reaches the page as text and never as markup: `make` sets
// attributes from a fixed list, and children are nodes or text.

const ATTRIBUTES = new Set([
  "aria-describedby", "aria-hidden", "aria-label", "aria-labelledby", "class", "cx", "cy", "d", "datetime", "data-label",
  "fill", "height", "id", "open", "points", "preserveAspectRatio", "r", "role", "scope", "tabindex", "title", "viewBox",
  "width", "x", "x1", "x2", "y", "y1", "y2",
]);
const SVG = "http://www.w3.org/2000/svg";

function built(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (!ATTRIBUTES.has(name)) throw new Error(`no attribute ${name}`);
    if (value !== null && value !== undefined && value !== "") node.setAttribute(name, String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

/** Return an element with attributes and children; texts stay texts. */
export function make(tag, attributes = {}, ...children) {
  return built(document.createElement(tag), attributes, children);
}

/** Return an SVG element. */
export function draw(tag, attributes = {}, ...children) {
  return built(document.createElementNS(SVG, tag), attributes, children);
}

const shown = new WeakMap(); // node -> what it was made of
const keys = new WeakMap(); // row -> its key

/** Put children into a node unless the same were put there before, so that nothing moves under a reader. */
export function put(node, key, makeChildren) {
  const said = JSON.stringify(key);
  if (shown.get(node) === said) return;
  shown.set(node, said);
  node.replaceChildren(...makeChildren());
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
export const count = (n) => whole.format(n);

/** Write a number with about three digits. */
export function short(n) {
  if (n < 0) return `−${short(-n)}`;
  if (n === 0) return "0";
  return n >= 100 ? whole.format(n) : n >= 10 ? n.toFixed(1) : n >= 0.005 ? n.toFixed(2) : "under 0.01";
}

export const rate = (n) => `${short(n)}/s`;

/** Write milliseconds with a unit that fits. */
export function ms(n) {
  if (n === null || n === undefined) return "–";
  if (n >= 9999) return "over 10 s";
  return n >= 1000 ? `${(n / 1000).toFixed(2)} s` : n >= 1 ? `${short(n)} ms` : `${Math.round(n * 1000)} µs`;
}

export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });

/** Return a time in the viewer's zone, with UTC in its title; with its day unless it is today's. */
export function when(seconds, withDay = false) {
  const date = new Date(seconds * 1000);
  const utc = date.toISOString().replace("T", " ").replace(/\.\d+Z/, " UTC");
  const today = date.toDateString() === new Date().toDateString();
  const text = withDay || !today ? `${day.format(date)}, ${clock.format(date)}` : clock.format(date);
  return make("time", { datetime: date.toISOString(), title: utc }, text);
}

/** Write a span of time in its largest unit or two. */
export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

const SIGNS = {
  allow: "○", alert: "△", degrade: "◐", label_only: "◑", throttle: "◔", deny: "■", status: "·",
  held: "✓", "not held": "✕", unresolved: "?", "not gated": "–", passed: "✓", failed: "✕", yes: "✓", no: "✕",
};
export const WORDS = { label_only: "labels only" };

/** Return a word with a sign of its own shape, so that nothing is told by colour alone. */
export function badge(kind, text = WORDS[kind] ?? kind) {
  const known = Object.hasOwn(SIGNS, kind) ? kind.replaceAll(/[ _]/g, "-") : "other";
  const sign = Object.hasOwn(SIGNS, kind) ? SIGNS[kind] : "•";
  return make("span", { class: `badge ${known}` }, make("span", { "aria-hidden": "true" }, sign), ` ${text}`);
}

export const code = (text, title = "") => make("code", { title }, text);
export const hint = (...children) => make("p", { class: "hint" }, ...children);

/** Return a paragraph for a section that has nothing to show, which says what would fill it. */
export const empty = (...children) => make("p", { class: "empty" }, ...children);

/**
 * Keep a table of a section up to date: rows that stay as they were are not touched.
 * columns: [heading, class, makeCell] each; keyOf: names a row.
 */
export function table(holder, caption, columns, rows, keyOf, compact = false) {
  let found = holder.querySelector(":scope > div > table");
  if (found === null) {
    const heads = columns.map(([heading, kind]) =>
      make("th", { class: kind, scope: "col", role: "columnheader" }, heading));
    found = make("table", { role: "table" }, make("caption", { class: "unseen" }, caption),
      make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...heads)), make("tbody", { role: "rowgroup" }));
    // What may scroll can be reached by keyboard; a compact table never does, and stays a table on a phone.
    const frame = compact ? { class: "compact" } : { class: "scroll", tabindex: "0", role: "region", "aria-label": caption };
    holder.replaceChildren(make("div", frame, found));
    shown.delete(holder);
  }
  const body = found.tBodies[0];
  const before = new Map([...body.rows].map((row) => [keys.get(row), row]));
  const wanted = rows.map((row, place) => {
    const key = String(keyOf(row, place));
    const said = JSON.stringify(row);
    const known = before.get(key);
    if (known !== undefined && shown.get(known) === said) return known;
    const cells = columns.map(([heading, kind, cell], at) => {
      const role = at === 0 ? { scope: "row", role: "rowheader" } : { role: "cell" };
      const value = make("div", {}, ...[cell(row)].flat());
      return make(at === 0 ? "th" : "td", { class: kind, "data-label": heading, ...role }, value);
    });
    const made = make("tr", { role: "row" }, ...cells);
    keys.set(made, key);
    shown.set(made, said);
    return made;
  });
  if (wanted.length !== body.rows.length || wanted.some((row, at) => body.rows[at] !== row)) body.replaceChildren(...wanted);
}

/** Write JSON values as YAML, as a policy is written. */
export function yaml(value, indent = "") {
  if (Array.isArray(value)) {
    if (value.length === 0) return " []";
    if (value.every((item) => item === null || typeof item !== "object")) return ` [${value.map(scalar).join(", ")}]`;
    return value.map((item) => {
      const text = yaml(item, `${indent}  `);
      return `\n${indent}- ${text.startsWith("\n") ? text.slice(1).trimStart() : text.trimStart()}`;
    }).join("");
  }
  if (value !== null && typeof value === "object") {
    const entries = Object.entries(value);
    if (entries.length === 0) return " {}";
    return entries.map(([name, item]) => `\n${indent}${scalar(name)}:${yaml(item, `${indent}  `)}`).join("");
  }
  return ` ${scalar(value)}`;
}

function scalar(value) {
  if (typeof value !== "string") return String(value);
  const plain = /^[A-Za-z_/.][\w ./@$*+-]*$/.test(value) && !/^(true|false|null|yes|no|on|off|\.)$/i.test(value) && value.trim() === value;
  return plain ? value : JSON.stringify(value);
}
