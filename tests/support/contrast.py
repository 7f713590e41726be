"""What WCAG asks of colours, measured in the page: the contrast of every text with what it is written on."""

from __future__ import annotations

CONTRASTS = r"""
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
function rgba(colour) {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
  return { rgb: [r, g, b], a: a / 255 };
}
const over = (top, below) => top.rgb.map((c, i) => c * top.a + below[i] * (1 - top.a));
function ground(element) {
  const chain = [];
  for (let e = element; e; e = e.parentElement) chain.push(rgba(getComputedStyle(e).backgroundColor));
  return chain.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
}
function luminance(rgb) {
  const [r, g, b] = rgb.map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function ratio(one, other) {
  const [high, low] = [luminance(one), luminance(other)].sort((a, b) => b - a);
  return (high + 0.05) / (low + 0.05);
}
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || ["SCRIPT", "STYLE", "NOSCRIPT"].includes(element.tagName)) continue;
  if (!element.checkVisibility() || element.closest("svg") || element.closest("button:disabled")) continue;
  const below = ground(element);
  const style = getComputedStyle(element);
  // A gradient is as bad as its worst colour.
  const striped = element.closest(".shadow-banner");
  const colours = striped ? getComputedStyle(striped).backgroundImage.match(/rgba?\([^)]*\)/g) : [];
  const stripes = colours.map((colour) => rgba(colour).rgb);
  const worst = Math.min(...[below, ...stripes].map((under) => ratio(over(rgba(style.color), under), under)));
  found.push([Math.round(worst * 100) / 100, walker.currentNode.data.trim().slice(0, 60)]);
}
return found;
"""
"""A script that returns [ratio, text] of every text that is to be seen."""
