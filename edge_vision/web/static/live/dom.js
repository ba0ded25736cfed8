// Elements from text: nothing that a robot publishes is ever parsed as HTML.

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return made;
}

export function table(rows, head = null) {
  const isNumber = (column) => rows.some((row) => typeof row[column] === "number");
  const cell = (value, column, tag = "td") =>
    element(tag, isNumber(column) ? { class: "number" } : {},
      value === null || value === undefined ? "n/a" : value instanceof Node ? value : shown(value));
  const made = element("table");
  if (head) made.append(element("tr", {}, ...head.map((title, column) => cell(title, column, "th"))));
  for (const row of rows) made.append(element("tr", {}, ...row.map((value, column) => cell(value, column))));
  return made;
}

export function shown(value) {
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return value.toFixed(Math.abs(value) < 1 ? 3 : 1);
}

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
