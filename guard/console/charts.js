// Curves, drawn as SVG. Each has a title and a description for who cannot see it, and the section a table beside it.

import { draw, make } from "./page.js";

const WIDTH = 600;
const REACHES = [60, 120, 300, 600];
let drawn = 0;

/** Return the seconds that an axis covers: as much as is known, in a round number of minutes. */
export function reachOf(ages) {
  const oldest = ages[0] ?? 0;
  return REACHES.find((reach) => reach >= oldest) ?? REACHES.at(-1);
}

const ago = (seconds) => (seconds >= 60 ? `${seconds / 60} min ago` : `${seconds} s ago`);

function upTo(values) {
  const most = Math.max(0, ...values.filter((value) => value !== null));
  if (most === 0) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((bound) => bound >= most * 0.999);
}

/** Return the path of a curve, broken where nothing is known. */
function path(values, ages, most, height, reach) {
  let d = "";
  let open = false;
  values.forEach((value, at) => {
    if (value === null) {
      open = false;
      return;
    }
    const x = (WIDTH * (1 - ages[at] / reach)).toFixed(1);
    const y = (height - (height - 2) * Math.min(1, value / most)).toFixed(1);
    d += `${open ? "L" : "M"}${x} ${y}`;
    // A point without neighbours is still to be seen.
    if (!open && values[at + 1] == null) d += `h1`;
    open = true;
  });
  return d;
}

/**
 * Return a chart of several curves over the last minutes.
 * curves: [{name, kind, values}]; ages: seconds ago of each value; unit: writes a value.
 */
export function chart(title, description, curves, ages, unit, height = 150) {
  drawn += 1;
  const reach = reachOf(ages);
  const most = upTo(curves.flatMap((curve) => curve.values));
  const lines = [0.25, 0.5, 0.75].map((share) =>
    draw("line", { class: "grid", x1: 0, x2: WIDTH, y1: height * share, y2: height * share }));
  const paths = curves.map((curve) =>
    draw("path", { class: `curve ${curve.kind}`, d: path(curve.values, ages, most, height, reach), fill: "none" }));
  const svg = draw("svg", {
    viewBox: `0 0 ${WIDTH} ${height}`, preserveAspectRatio: "none", role: "img", class: "chart",
    "aria-labelledby": `chart-${drawn}-t chart-${drawn}-d`,
  }, draw("title", { id: `chart-${drawn}-t` }, title), draw("desc", { id: `chart-${drawn}-d` }, description), ...lines, ...paths);
  const key = curves.map((curve) => make("li", {}, swatch(curve.kind), ` ${curve.name}`));
  return make("figure", {},
    make("div", { class: "plot" }, make("span", { class: "most" }, unit(most)), svg),
    make("div", { class: "axis", "aria-hidden": "true" }, make("span", {}, ago(reach)), make("span", {}, ago(reach / 2)), make("span", {}, "now")),
    make("ul", { class: "key" }, ...key));
}

function swatch(kind) {
  return draw("svg", { viewBox: "0 0 24 8", class: "swatch", "aria-hidden": "true" },
    draw("line", { class: `curve ${kind}`, x1: 0, x2: 24, y1: 4, y2: 4 }));
}

/** Return a small curve for a table's row; what it shows is said beside it. */
export function spark(values, ages) {
  const height = 24;
  const reach = reachOf(ages);
  return draw("svg", { viewBox: `0 0 ${WIDTH} ${height}`, preserveAspectRatio: "none", class: "spark", "aria-hidden": "true" },
    draw("path", { class: "curve plain", d: path(values, ages, upTo(values), height, reach), fill: "none" }));
}

/** Return a bar that is filled to a share; what it shows is said beside it. */
export function bar(share, kind) {
  const width = Math.max(0, Math.min(100, share * 100)).toFixed(1);
  return draw("svg", { viewBox: "0 0 100 6", preserveAspectRatio: "none", class: "bar", "aria-hidden": "true" },
    draw("rect", { class: "bar-all", x: 0, y: 0, width: 100, height: 6 }),
    draw("rect", { class: `bar-part ${kind}`, x: 0, y: 0, width, height: 6 }));
}
