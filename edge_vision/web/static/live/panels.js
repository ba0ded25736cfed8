// The figures of one camera, from its statuses.

import { element, shown, table } from "./dom.js";

export function showCause(status) {
  const cause = document.getElementById("cause");
  const silent = status.silent_s > 3.5;
  const fine = !silent && status.cause === "none";
  cause.hidden = fine;
  cause.className = silent ? "STALE" : status.level;
  const since = status.since_s >= 1 ? ` (for ${shown(Math.round(status.since_s))} s)` : "";
  const text = silent
    ? `No report for ${Math.round(status.silent_s)} s: has the pipeline ended? The figures below are old.`
    : `${status.message}${since}`;
  // An alert that is set again is read out again.
  if (cause.textContent !== text) cause.textContent = text;
}

export function showPanels(status) {
  const panels = [
    panel("Figures", table([
      ...status.figures.map(([label, value, unit]) => [label, value, unit]),
      ...(status.throttling ? [["Throttling", status.throttling, ""]] : []),
      ...(status.figures.some(([label]) => label === "Power") ? [] : [["Power", "not reported", ""]]),
    ])),
    panel("Frame accounting", ledger(status.ledger)),
    panel("Audit of skipped frames", element("p", { id: "audit" }, audit(status.audit))),
    panel("Nodes", table(
      status.stages.map(([name, level, text, ...figures]) => [name, ...figures, element("span", { class: level }, `${level} ${text}`)]),
      ["node", "Hz in", "Hz out", "p50 ms", "p95 ms", "state"])),
    panel("Model", table([["Model", status.model || "n/a"], ["Runs on", status.backend.actual || "n/a"],
      ["Requested", status.backend.requested || "n/a"], ["Fallback", status.backend.fallback || "none"]])),
    panel("Processes", table(status.processes, ["process", "% of a core", "MB"])),
  ];
  if (status.problems.length) {
    panels.push(panel("Problems", element("ul", {}, ...status.problems.map(([level, name, text]) =>
      element("li", { class: level }, `${level} ${name}: ${text}`)))));
  }
  document.getElementById("panels").replaceChildren(...panels);
}

function panel(title, ...content) {
  return element("section", { class: "panel" }, element("h2", {}, title), ...content);
}

function ledger({ counts, balanced, reasons }) {
  const { received, ...fates } = counts;
  const sum = Object.entries(fates).map(([fate, n]) => `${fate.replace("_", " ")} ${shown(n)}`).join(" + ");
  const text = received === undefined ? "n/a" : `received ${shown(received)} = ${sum}`;
  const wrong = balanced === "False" ? element("p", { class: "ERROR" }, "The counts do not add up: please report this.") : "";
  return element("div", { id: "ledger" }, element("p", {}, text), wrong, table(reasons));
}

function audit(found) {
  if (!found) return "n/a: no skipped frame was audited yet";
  const percent = (value) => `${(100 * value).toFixed(1)} %`;
  const opens = found.open ? ". The audit holds the gate open" : "";
  return `missed an object on ${percent(found.rate)} of the skipped frames (95 %: ${percent(found.low)} to ` +
    `${percent(found.high)}), ${shown(found.missed)} of ${shown(found.audited)} audited frames${opens}`;
}
