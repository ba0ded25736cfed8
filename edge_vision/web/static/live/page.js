// The live page: one WebSocket; pictures, timeline and figures of the cameras.

import { element } from "./dom.js";
import { Parameters } from "./parameters.js";
import { showCause, showPanels } from "./panels.js";
import { Picture } from "./picture.js";
import { Timeline } from "./timeline.js";

const ALL = "all";
const LAST_RETRY_MS = 5000;
const connection = document.getElementById("connection");
const tabs = document.getElementById("cameras");
const pause = document.getElementById("pause");
const decoder = new TextDecoder();

const statuses = new Map();
const pictures = new Map();
const timeline = new Timeline();
const parameters = new Parameters();
// From the address: chosen as soon as it reports.
let wanted = fromAddress();
let chosen = "";
let drawing = Promise.resolve();
let socket = null;
let retryMs = 500;

function main() {
  if (!("WebSocket" in window) || !("createImageBitmap" in window)) {
    connection.textContent = "This page needs WebSocket and createImageBitmap: use a present browser.";
    return;
  }
  pause.addEventListener("click", togglePause);
  document.addEventListener("keydown", onKey);
  document.addEventListener("visibilitychange", watch);
  window.addEventListener("resize", () => timeline.draw());
  connect();
}

function fromAddress() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return "";
  }
}

function connect() {
  connection.textContent = "Connecting...";
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/socket`);
  socket.binaryType = "arraybuffer";
  socket.addEventListener("open", () => {
    retryMs = 500;
    connection.textContent = statuses.size ? "Connected" : "Connected. No pipeline reports yet: start one in the same ROS_DOMAIN_ID";
    watch();
  });
  socket.addEventListener("message", ({ data }) => {
    if (typeof data === "string") onText(JSON.parse(data));
    else drawing = drawing.then(() => onFrame(data)).catch((error) => console.error(error));
  });
  socket.addEventListener("close", (event) => {
    connection.textContent = `Not connected${event.reason ? ` (${event.reason})` : ""}: trying again`;
    setTimeout(connect, retryMs);
    retryMs = Math.min(2 * retryMs, LAST_RETRY_MS);
  });
}

function send(message) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

function watch() {
  const idle = document.hidden || pause.getAttribute("aria-pressed") === "true";
  send({ watch: idle ? [] : visible() });
}

function visible() {
  return chosen === ALL ? [...statuses.keys()].slice(0, 16) : [chosen].filter((camera) => statuses.has(camera));
}

async function onFrame(data) {
  const length = new DataView(data).getUint32(0, true);
  const header = JSON.parse(decoder.decode(new Uint8Array(data, 4, length)));
  try {
    await picture(header.camera).show(header, new Uint8Array(data, 4 + length));
  } catch (error) {
    picture(header.camera).caption.textContent = `Expected a JPEG, got: ${error}`;
  }
  send({ drawn: 1 });
}

function onText(message) {
  if (message.kind === "status") onStatus(message.camera, message.status);
  else if (message.kind === "records") onRecords(message.camera, message.records);
  else if (message.kind === "scene") Object.assign(picture(message.camera), { labels: message.labels, zones: message.zones });
  else if (message.kind === "picture_error") picture(message.camera).caption.textContent = `${message.camera}: ${message.text}`;
}

function onStatus(camera, status) {
  const isNew = !statuses.has(camera);
  statuses.set(camera, status);
  if (isNew) {
    connection.textContent = "Connected";
    choose(camera === wanted || wanted === ALL ? wanted : chosen || camera);
  } else if (camera === shownCamera()) showStatus();
}

function onRecords(camera, added) {
  if (camera === shownCamera()) timeline.add(added);
}

function picture(camera) {
  if (!pictures.has(camera)) pictures.set(camera, new Picture(camera));
  return pictures.get(camera);
}

// The camera whose figures are shown: of all cameras, the first.
function shownCamera() {
  return chosen === ALL ? [...statuses.keys()].sort()[0] : chosen;
}

function showStatus() {
  const status = statuses.get(shownCamera());
  if (!status) return;
  showCause(status);
  showPanels(status);
}

function choose(camera) {
  if (camera !== chosen) timeline.clear();
  chosen = camera;
  if (camera === wanted) wanted = "";
  history.replaceState(null, "", `#${encodeURIComponent(camera)}`);
  const names = [...statuses.keys()].sort();
  const buttons = (names.length > 1 ? [...names, ALL] : names).map((name) =>
    element("button", { type: "button", "aria-pressed": String(name === chosen), onclick: () => choose(name) }, name));
  tabs.replaceChildren(...buttons);
  document.getElementById("pictures").replaceChildren(...visible().sort().map((name) => picture(name).element));
  showStatus();
  parameters.select(shownCamera());
  watch();
}

function togglePause() {
  const paused = pause.getAttribute("aria-pressed") !== "true";
  pause.setAttribute("aria-pressed", String(paused));
  watch();
}

function onKey(event) {
  if (event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
  const names = [...statuses.keys()].sort();
  if (event.key === "p" || event.key === "P") togglePause();
  else if (event.key === "0" && names.length > 1) choose(ALL);
  else if (/^[1-9]$/.test(event.key) && names[event.key - 1]) choose(names[event.key - 1]);
}

main();
