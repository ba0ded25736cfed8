// Reviews pictures by keyboard or pointer; each change is sent at once, one after the other.

const $ = (id) => document.getElementById(id);
const stage = $("stage");
const MIN_PX = 2, GRIP_PX = 9, UNDO = 100, SHOWN_LABELS = 50;

let pictures = [], labels = [];
let at = -1, picture = null, boxes = [], chosen = -1, undo = [];
let image = null;
let pending = null, sending = false, deciding = false;

async function call(path, options = {}) {
  const answer = await fetch(path, { credentials: "same-origin", ...options });
  const value = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
  if (!answer.ok) throw Object.assign(new Error(value.error || answer.statusText), { status: answer.status });
  return value;
}

function report(error) {
  $("problem").hidden = !error;
  $("problem").textContent = error ? error.message : "";
}

// Pictures.
async function load() {
  const found = await call("pictures");
  pictures = found.pictures;
  labels = found.labels;
  report(found.damaged.length ? new Error(`${found.damaged.length} damaged: ${found.damaged[0]}`) : null);
  const wanted = $("filter").value;
  await show(wanted ? pictures.findIndex((one) => one.state === wanted) : 0);
}

function step(from, by) {
  const wanted = $("filter").value;
  for (let i = from + by; i >= 0 && i < pictures.length; i += by) {
    if (!wanted || pictures[i].state === wanted) return i;
  }
  return -1;
}

async function show(index) {
  if (sending) await sending;
  at = index;
  chosen = -1;
  undo = [];
  picture = null;
  boxes = [];
  image = null;
  closeChooser();
  if (at >= 0 && at < pictures.length) {
    const name = pictures[at].name;
    try {
      const [record, shown] = await Promise.all([call(`pictures/${name}`), loaded(`images/${name}.jpg`)]);
      if (pictures[at]?.name !== name) return;
      take(record);
      image = shown;
    } catch (error) {
      report(error);
    }
  }
  draw();
}

function loaded(path) {
  return new Promise((resolve, reject) => {
    const made = new Image();
    made.onload = () => resolve(made);
    made.onerror = () => reject(new Error(`${path}: expected a picture, got none; reload the page`));
    made.src = path;
  });
}

function take(record) {
  picture = record;
  pictures[at].state = record.state;
  boxes = record.boxes ?? record.proposals.filter((one) => one.score >= record.threshold);
  boxes = boxes.map(({ label, bbox }) => ({ label, bbox: [...bbox] }));
}

// Saving.
function save(state = picture.state) {
  pending = { name: picture.name, state, boxes: structuredClone(boxes) };
  pictures[at].state = state;
  $("saved").textContent = "saving";
  return sending ? sending : (sending = send());
}

async function send() {
  let record = picture;
  while (pending) {
    const { name, state, boxes: sent } = pending;
    if (record.name !== name) break;
    pending = null;
    try {
      const body = JSON.stringify({ revision: record.revision, state, boxes: sent });
      record = await call(`pictures/${name}`, { method: "PUT", body });
      if (picture?.name === name) picture = record;
      report(null);
      $("saved").textContent = pending ? "saving" : "saved";
    } catch (error) {
      pending = null;
      if (pictures[at]?.name === name) pictures[at].state = picture.state;
      $("saved").textContent = "not saved";
      report(error);
      if (error.status === 409 && picture?.name === name) {
        take(await call(`pictures/${name}`));
        undo = [];
      }
    }
  }
  sending = false;
  draw();
}

async function decide(state) {
  if (!picture || deciding) return;
  deciding = true;
  await save(state);
  if (picture.state === state && state !== "open") await go(1);
  deciding = false;
}

async function go(by) {
  const next = step(at, by);
  if (next >= 0) await show(next);
  else if ($("filter").value && picture && picture.state !== $("filter").value) await show(step(-1, 1));
  else draw();
}

// Boxes.
function change(edit) {
  if (!picture) return;
  undo.push(structuredClone(boxes));
  if (undo.length > UNDO) undo.shift();
  edit();
  clip();
  save();
  draw();
}

function clip() {
  const { width_px: width, height_px: height } = picture;
  for (const { bbox } of boxes) {
    bbox[2] = Math.min(Math.max(bbox[2], MIN_PX), width);
    bbox[3] = Math.min(Math.max(bbox[3], MIN_PX), height);
    bbox[0] = Math.min(Math.max(bbox[0], 0), width - bbox[2]);
    bbox[1] = Math.min(Math.max(bbox[1], 0), height - bbox[3]);
    bbox.forEach((value, i) => { bbox[i] = Math.round(value * 10) / 10; });
  }
}

function overlap(one, other) {
  const side = (i) => Math.min(one[i] + one[i + 2], other[i] + other[i + 2]) - Math.max(one[i], other[i]);
  const common = Math.max(0, side(0)) * Math.max(0, side(1));
  return common / (one[2] * one[3] + other[2] * other[3] - common);
}

// What a model has proposed, and is not a box yet.
function faint() {
  if (!picture) return [];
  const found = [...picture.proposals, ...picture.other].sort((a, b) => b.score - a.score);
  return found.filter((one) => boxes.every((box) => overlap(box.bbox, one.bbox) < 0.5));
}

function takeOver() {
  const [best] = faint();
  if (best) change(() => { chosen = boxes.push({ label: best.label, bbox: [...best.bbox] }) - 1; });
}

function add(bbox = null) {
  if (!picture) return;
  const { width_px: width, height_px: height } = picture;
  const label = boxes[chosen]?.label ?? boxes.at(-1)?.label ?? picture.classes.find(Boolean) ?? labels[0] ?? "object";
  change(() => {
    chosen = boxes.push({ label, bbox: bbox ?? [width * 0.375, height * 0.375, width / 4, height / 4] }) - 1;
  });
}

function remove() {
  if (chosen < 0) return;
  change(() => { boxes.splice(chosen, 1); chosen = Math.min(chosen, boxes.length - 1); });
}

function move(dx, dy, resize) {
  change(() => {
    const { bbox } = boxes[chosen];
    bbox[resize ? 2 : 0] += dx;
    bbox[resize ? 3 : 1] += dy;
  });
}

function openChooser() {
  if (chosen < 0) return;
  $("chooser").hidden = false;
  $("label").value = "";
  $("label").placeholder = boxes[chosen].label;
  suggest();
  $("label").focus();
}

function closeChooser() {
  if ($("chooser").contains(document.activeElement)) stage.focus();
  $("chooser").hidden = true;
}

// A model may have thousands of labels.
function suggest() {
  const text = $("label").value.trim().toLowerCase();
  const found = labels.filter((one) => one.toLowerCase().includes(text)).slice(0, SHOWN_LABELS);
  $("labels").replaceChildren(...found.map((one) => Object.assign(document.createElement("option"), { value: one })));
}

function setLabel(event) {
  event.preventDefault();
  const text = $("label").value.trim().toLowerCase();
  const best = labels.find((one) => one.toLowerCase() === text) ?? labels.find((one) => one.toLowerCase().startsWith(text));
  const index = chosen;
  closeChooser();
  if (text && index >= 0) change(() => { boxes[index].label = best ?? text; });
}

// Drawing.
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function draw() {
  const counts = Object.groupBy ? Object.entries(Object.groupBy(pictures, (one) => one.state)) : [];
  $("counts").textContent = `${pictures.length} pictures` + counts.map(([k, v]) => `, ${v.length} ${k}`).join("");
  if (!sending && $("saved").textContent !== "not saved") $("saved").textContent = "saved";
  const suggestions = faint();
  $("boxes").replaceChildren(
    ...boxes.map((one, i) => item(one, { "aria-current": String(i === chosen) })),
    ...suggestions.slice(0, 5).map((one) => item(one, { class: "faint" }, ` ${one.score.toFixed(2)}`)));
  $("about").textContent = picture
    ? `${at + 1} of ${pictures.length}: ${picture.reason}${picture.classes.filter(Boolean).map((one) => ` ${one}`).join(",")}, `
      + `${picture.collected}, ${picture.camera || "/"}, ${picture.bundle || "unknown model"}: ${picture.state}`
    : pictures.length ? "No picture in this list." : "No pictures yet.";
  const context = stage.getContext("2d");
  stage.width = picture?.width_px ?? 320;
  stage.height = picture?.height_px ?? 180;
  stage.dataset.picture = image && picture ? picture.name : "";
  stage.dataset.state = picture?.state ?? "";
  stage.dataset.chosen = String(chosen);
  if (!image || !picture) return;
  context.drawImage(image, 0, 0, stage.width, stage.height);
  const unit = Math.max(1, stage.width / (stage.clientWidth || stage.width));
  context.font = `${14 * unit}px system-ui, sans-serif`;
  for (const one of suggestions) outline(context, one, colour("faint"), unit, [4 * unit, 4 * unit], "");
  boxes.forEach((one, i) =>
    outline(context, one, colour(i === chosen ? "chosen" : "box"), (i === chosen ? 3 : 2) * unit, [], one.label));
}

function item(box, attributes, more = "") {
  const made = document.createElement("li");
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = box.label + more;
  return made;
}

function outline(context, { bbox }, shade, width, dash, label) {
  context.strokeStyle = context.fillStyle = shade;
  context.lineWidth = width;
  context.setLineDash(dash);
  context.strokeRect(...bbox);
  if (!label) return;
  const at = [bbox[0], Math.max(bbox[1] - width, 14)];
  // A halo keeps the text legible on any picture.
  context.strokeStyle = colour("back");
  context.lineWidth = 2 * width;
  context.lineJoin = "round";
  context.setLineDash([]);
  context.strokeText(label, ...at);
  context.fillText(label, ...at);
}

// Pointer.
let drag = null;

function position(event) {
  const frame = stage.getBoundingClientRect();
  const scale = stage.width / frame.width;
  return [(event.clientX - frame.left) * scale, (event.clientY - frame.top) * scale, scale];
}

stage.addEventListener("pointerdown", (event) => {
  if (!picture) return;
  const [x, y, scale] = position(event);
  const inside = ({ bbox: [l, t, w, h] }) => x >= l && y >= t && x <= l + w && y <= t + h;
  const grip = ({ bbox: [l, t, w, h] }) => Math.hypot(l + w - x, t + h - y) < GRIP_PX * scale;
  const order = boxes.map((_, i) => i).sort((a, b) => boxes[a].bbox[2] * boxes[a].bbox[3] - boxes[b].bbox[2] * boxes[b].bbox[3]);
  const gripped = order.find((i) => grip(boxes[i]));
  const hit = gripped ?? order.find((i) => inside(boxes[i]));
  stage.setPointerCapture(event.pointerId);
  chosen = hit ?? -1;
  drag = { x, y, kind: hit === undefined ? "new" : gripped === undefined ? "move" : "size", before: structuredClone(boxes) };
  draw();
});

stage.addEventListener("pointermove", (event) => {
  if (!drag || !picture) return;
  const [x, y] = position(event);
  if (!drag.moved && Math.hypot(x - drag.x, y - drag.y) < 3) return;
  drag.moved = true;
  if (drag.kind === "new") {
    boxes = structuredClone(drag.before);
    const label = boxes.at(-1)?.label ?? picture.classes.find(Boolean) ?? labels[0] ?? "object";
    boxes.push({ label, bbox: [Math.min(x, drag.x), Math.min(y, drag.y), Math.abs(x - drag.x), Math.abs(y - drag.y)] });
    chosen = boxes.length - 1;
  } else {
    const [l, t, w, h] = drag.before[chosen].bbox;
    const [dx, dy] = [x - drag.x, y - drag.y];
    boxes[chosen].bbox = drag.kind === "move" ? [l + dx, t + dy, w, h] : [l, t, w + dx, h + dy];
  }
  clip();
  draw();
});

stage.addEventListener("pointerup", () => {
  if (drag?.moved) {
    undo.push(drag.before);
    save();
  }
  drag = null;
  draw();
});

// Keyboard.
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const KEYS = {
  a: () => decide("accepted"), x: () => decide("rejected"), u: () => decide("open"),
  j: () => go(1), k: () => go(-1), n: () => add(), d: remove, Delete: remove, l: openChooser, f: takeOver,
  z: () => {
    if (!undo.length) return;
    boxes = undo.pop();
    chosen = Math.min(chosen, boxes.length - 1);
    save();
    draw();
  },
  Escape: () => { chosen = -1; draw(); },
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey) return;
  if (event.target.matches("input, select")) {
    if (event.key === "Escape") closeChooser();
    return;
  }
  const arrow = ARROWS[event.key], key = KEYS[event.key] ?? KEYS[event.key.toLowerCase()];
  if (arrow && chosen >= 0) {
    const by = event.shiftKey ? 10 : 1;
    move(arrow[0] * by, arrow[1] * by, event.altKey);
  } else if (event.key === "Tab" && event.target === stage) {
    const next = chosen + (event.shiftKey ? -1 : 1);
    if (next < 0 || next >= boxes.length) return; // Leaves the picture.
    chosen = next;
    draw();
  } else if (key && !event.altKey) {
    key();
  } else {
    return;
  }
  event.preventDefault();
});

for (const [id, key] of Object.entries({ accept: "a", reject: "x", reopen: "u", previous: "k", next: "j" })) {
  $(id).addEventListener("click", () => { KEYS[key](); stage.focus(); });
}
$("chooser").addEventListener("submit", setLabel);
$("label").addEventListener("input", suggest);
$("filter").addEventListener("change", () => { show(step(-1, 1)).then(() => stage.focus()); });
// Only then may a resize draw: without the list it would state that there are no pictures.
load().then(() => { addEventListener("resize", draw); stage.focus(); }).catch(report);
