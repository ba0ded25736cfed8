// What became of each frame: a strip of bars, the counts by reason, and the chosen frame in words.

import { colour, element } from "./dom.js";

const WINDOW_MS = 20000;
const HEIGHTS = { inferred: 1, gated: 0.45, rejected: 0.6 };

export class Timeline {
  constructor() {
    this.section = document.getElementById("timeline");
    this.strip = document.getElementById("strip");
    this.chosenText = document.getElementById("chosen");
    this.outcomes = document.getElementById("outcomes");
    this.strip.addEventListener("pointermove", (event) => this.choose(this.nearest(event.offsetX)));
    this.strip.addEventListener("pointerleave", () => this.choose(null));
    this.strip.addEventListener("keydown", (event) => this.onKey(event));
    this.clear();
  }

  clear() {
    this.records = [];
    this.chosen = null;
    this.draw();
  }

  add(records) {
    for (const [stamp, outcome, reason, age] of records) this.records.push({ stamp, outcome, reason, age });
    const newest = Math.max(...this.records.slice(-600).map((one) => one.stamp));
    // A file that begins again has older stamps.
    this.records = this.records.filter((one) => one.stamp > newest - WINDOW_MS && one.stamp <= newest).slice(-2400);
    this.newest = newest;
    this.draw();
  }

  kind(outcome) {
    return outcome in HEIGHTS ? outcome : "lost";
  }

  draw() {
    this.section.hidden = this.records.length === 0;
    if (this.section.hidden) return;
    const strip = this.strip;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(strip.clientWidth * ratio), Math.round(strip.clientHeight * ratio)];
    if (strip.width !== width || strip.height !== height) Object.assign(strip, { width, height });
    const context = strip.getContext("2d");
    context.clearRect(0, 0, width, height);
    const colours = Object.fromEntries(["inferred", "gated", "rejected", "lost", "text"].map((name) => [name, colour(name)]));
    for (const one of this.records) {
      const high = (HEIGHTS[one.outcome] ?? 0.75) * height;
      context.fillStyle = colours[one === this.chosen ? "text" : this.kind(one.outcome)];
      context.fillRect(this.x(one) * ratio, height - high, Math.max(1, 1.5 * ratio), high);
    }
    this.count();
  }

  x(one) {
    return (1 - (this.newest - one.stamp) / WINDOW_MS) * (this.strip.clientWidth - 3);
  }

  count() {
    const counts = new Map();
    for (const { outcome, reason } of this.records) {
      const reasons = counts.get(outcome) ?? counts.set(outcome, new Map()).get(outcome);
      reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
    }
    const texts = [...counts].map(([outcome, reasons]) => {
      const total = [...reasons.values()].reduce((sum, n) => sum + n, 0);
      const named = [...reasons].filter(([reason]) => reason).sort((a, b) => b[1] - a[1]);
      const why = named.map(([reason, n]) => `${reason} ${n}`).join(", ");
      return element("li", { "data-outcome": outcome }, element("i", { class: this.kind(outcome) }),
        `${outcome} ${total}${why ? ` (${why})` : ""}`);
    });
    this.outcomes.replaceChildren(...texts);
  }

  nearest(x) {
    let best = null;
    for (const one of this.records)
      if (best === null || Math.abs(this.x(one) - x) < Math.abs(this.x(best) - x)) best = one;
    return best;
  }

  choose(one) {
    this.chosen = one;
    this.chosenText.textContent = one
      ? `${((this.newest - one.stamp) / 1000).toFixed(2)} s ago: ${one.outcome}${one.reason ? `, ${one.reason}` : ""}` +
        (one.age === null ? "" : `, detections ${Math.round(one.age)} ms old`)
      : "";
    this.draw();
  }

  onKey(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const inOrder = [...this.records].sort((a, b) => a.stamp - b.stamp);
    const at = this.chosen ? inOrder.indexOf(this.chosen) + step : inOrder.length - 1;
    this.choose(inOrder[Math.min(inOrder.length - 1, Math.max(0, at))] ?? null);
  }
}
