// The nodes' parameters: read, and set where the server allows it.

import { element } from "./dom.js";

export class Parameters {
  constructor() {
    this.details = document.getElementById("parameters");
    this.list = document.getElementById("parameter-list");
    this.details.addEventListener("toggle", () => this.load());
  }

  select(camera) {
    this.camera = camera;
    this.details.hidden = !camera;
    this.load();
  }

  async load() {
    if (!this.details.open || !this.camera) return;
    const camera = this.camera;
    this.list.textContent = "Reading...";
    try {
      const answer = await fetch(`parameters?camera=${encodeURIComponent(camera)}`);
      const found = await answer.json();
      if (camera === this.camera) this.show(found);
    } catch (error) {
      this.list.textContent = `Expected the parameters, got: ${error}`;
    }
  }

  show(found) {
    if (found.error) {
      this.list.textContent = found.error;
      return;
    }
    const rows = found.parameters.map((one) => element("tr", {},
      element("td", {}, `${one.node}.${one.name}`),
      element("td", {}, found.may_set && !one.read_only ? this.form(one) : JSON.stringify(one.value)),
      element("td", {}, one.description)));
    const note = found.may_set ? "" : "Read only: the server runs without --allow-control.";
    this.list.replaceChildren(element("p", {}, note), element("table", {}, ...rows));
  }

  form(one) {
    const input = element("input", { value: JSON.stringify(one.value), "aria-label": `${one.node}.${one.name}` });
    const answer = element("span", { role: "status" });
    const submit = async (event) => {
      event.preventDefault();
      answer.className = "";
      answer.textContent = "...";
      try {
        await this.set(one, JSON.parse(input.value));
        answer.textContent = "set";
      } catch (error) {
        answer.className = "ERROR";
        answer.textContent = error.message;
      }
    };
    return element("form", { onsubmit: submit }, input, element("button", {}, "Set"), answer);
  }

  async set({ node, name }, value) {
    const body = JSON.stringify({ camera: this.camera, node, name, value });
    const answer = await fetch("parameters", { method: "POST", body, headers: { "Content-Type": "application/json" } });
    const found = await answer.json();
    if (found.error) throw new Error(found.error);
  }
}
