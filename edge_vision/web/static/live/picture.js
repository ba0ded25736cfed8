// One camera's picture: the frame, and on it the boxes of the frame's own stamp.

import { element } from "./dom.js";

export class Picture {
  constructor(camera) {
    this.camera = camera;
    this.labels = {};
    this.zones = [];
    this.canvas = element("canvas", { role: "img", "aria-label": `${camera}: no picture yet`, width: 640, height: 360 });
    this.caption = element("figcaption", {}, "No picture yet.");
    this.element = element("figure", { "data-camera": camera }, this.canvas, this.caption);
    this.times = [];
  }

  async show(header, jpeg) {
    const bitmap = await createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }));
    const canvas = this.canvas;
    if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
      canvas.width = bitmap.width;
      canvas.height = bitmap.height;
    }
    const context = canvas.getContext("2d");
    context.drawImage(bitmap, 0, 0);
    bitmap.close();
    // Lines and letters of the same size on a phone as on a desk.
    const shown = Math.min(canvas.clientWidth / canvas.width, canvas.clientHeight / canvas.height);
    const unit = 1 / (shown || 1);
    this.drawZones(context, unit);
    const boxes = header.tracks_stamp === header.stamp ? header.boxes : [];
    const scale = canvas.width / header.width;
    for (const box of boxes) this.drawBox(context, unit, scale, header.kind, box);
    for (const [at, ...points] of header.lines) {
      if (boxes[at]) this.drawLine(context, unit, colourOf(boxes[at][5]), points.map((value) => value * scale));
    }
    this.describe(header, boxes);
  }

  drawZones(context, unit) {
    context.lineWidth = 1.5 * unit;
    context.font = `${12 * unit}px system-ui, sans-serif`;
    for (const zone of this.zones) {
      const points = zone.vertices.map(([x, y]) => [x * context.canvas.width, y * context.canvas.height]);
      context.strokeStyle = context.fillStyle = zone.exclude ? "#ff6a5e" : "#4fd1ff";
      context.setLineDash([2 * unit, 3 * unit]);
      context.beginPath();
      points.forEach(([x, y], at) => (at ? context.lineTo(x, y) : context.moveTo(x, y)));
      context.closePath();
      context.stroke();
      context.fillText(`${zone.exclude ? "exclude" : "include"} ${zone.name}`, points[0][0] + 4 * unit, points[0][1] + 14 * unit);
    }
  }

  drawBox(context, unit, scale, kind, [left, top, right, bottom, score, classId, id, angle = 0]) {
    const colour = colourOf(classId);
    const [x, y, width, height] = [left, top, right - left, bottom - top].map((value) => value * scale);
    context.lineWidth = 2 * unit;
    context.strokeStyle = colour;
    context.setLineDash(kind === "predicted" ? [7 * unit, 5 * unit] : []);
    context.save();
    context.translate(x + width / 2, y + height / 2);
    context.rotate(angle);
    context.strokeRect(-width / 2, -height / 2, width, height);
    context.restore();
    const text = `${this.labels[classId] ?? classId}${id ? ` #${id}` : ""} ${score.toFixed(2)}`;
    context.font = `${12 * unit}px system-ui, sans-serif`;
    const wide = context.measureText(text).width + 6 * unit;
    const high = 16 * unit;
    const at = y >= high ? y - high : y;
    context.fillStyle = colour;
    context.fillRect(x, at, wide, high);
    context.fillStyle = "#000";
    context.fillText(text, x + 3 * unit, at + 12 * unit);
  }

  // The outline of a mask, a bone from joint to joint, or a joint.
  drawLine(context, unit, colour, [x, y, ...more]) {
    context.strokeStyle = context.fillStyle = colour;
    context.lineWidth = 2 * unit;
    context.setLineDash([]);
    context.beginPath();
    if (more.length === 0) {
      context.arc(x, y, 4 * unit, 0, 2 * Math.PI);
      context.fill();
      return;
    }
    context.moveTo(x, y);
    for (let at = 0; at < more.length; at += 2) context.lineTo(more[at], more[at + 1]);
    if (more.length > 2) context.closePath();
    context.stroke();
  }

  describe(header, boxes) {
    const now = performance.now();
    this.times = [...this.times.filter((time) => now - time < 3000), now];
    const rate = (this.times.length - 1) / Math.max(0.001, (now - this.times[0]) / 1000);
    // The gate's reason for a skip may be "predicted", too.
    const why = header.reason && header.reason !== header.kind ? ` (${header.reason})` : "";
    const kind = header.kind ? `${header.kind}${why}` : "no boxes: no tracks arrive for this picture";
    const age = header.age_ms === null ? "" : `, ${Math.round(header.age_ms)} ms old`;
    const rateText = this.times.length > 1 ? `, ${rate.toFixed(1)} fps` : "";
    this.caption.textContent =
      `${this.camera}: ${kind}, ${boxes.length} ${boxes.length === 1 ? "object" : "objects"}${age}${rateText}, ` +
      `${header.width}x${header.height}`;
    this.canvas.setAttribute("aria-label", `${this.camera}: ${boxes.length} objects, ${kind}`);
    Object.assign(this.element.dataset, {
      stamp: header.stamp,
      tracksStamp: header.tracks_stamp ?? "",
      kind: header.kind,
      boxes: boxes.length,
      lines: header.lines.length,
      drawnMs: Date.now(),
      shown: Number(this.element.dataset.shown ?? 0) + 1,
    });
  }
}

function colourOf(classId) {
  return `hsl(${(((Number(classId) || 0) * 0.618034) % 1) * 360} 90% 60%)`;
}
