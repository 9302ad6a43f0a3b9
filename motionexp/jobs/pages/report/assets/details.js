"use strict";
// What a sample's own script holds: command, files, row, per-frame scores, overlays. Loaded when asked for.
window.motionexp = (() => {
  const root = document.currentScript.src.replace(/assets\/[^/]*$/, "");
  const loading = new Map(); // {key: promise of the details}
  const resolvers = new Map();

  function load(key) {
    if (!loading.has(key)) {
      loading.set(key, new Promise((resolve) => {
        resolvers.set(key, resolve);
        const script = document.createElement("script");
        script.src = `${root}samples/${encodeURIComponent(key)}.js`;
        script.onerror = () => resolve({});
        document.head.append(script);
      }));
    }
    return loading.get(key);
  }

  function details(content) {
    resolvers.get(content.key)?.(content);
  }

  function element(name, text, attributes = {}) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
    return made;
  }

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      return false;
    }
  }

  function line(list, heading, text, withButton) {
    if (!text) return;
    const code = element("code", text, { tabindex: "0" });
    const value = element("dd");
    value.append(code);
    if (withButton) {
      const button = element("button", "Copy", { type: "button", "aria-label": `Copy the ${heading}` });
      button.addEventListener("click", async () => {
        if (await copy(text)) button.textContent = "Copied";
        else getSelection().selectAllChildren(code);
      });
      value.append(button);
    }
    list.append(element("dt", heading), value);
  }

  async function fill(box) {
    const place = box.querySelector(".fill");
    const about = await load(box.closest(".card").dataset.key);
    const list = element("dl");
    line(list, "command", about.command, true);
    line(list, "cell", about.cell, true);
    line(list, "adapter", about.adapter, true);
    const scores = element("table");
    scores.append(element("caption", "All scores"));
    for (const [name, value, reason] of about.scores || []) {
      const row = scores.insertRow();
      row.append(element("th", name.replaceAll("_", " "), { scope: "row" }));
      row.append(element("td", value === null ? `– ${reason}` : Number(value.toPrecision(4)).toString()));
    }
    const row = element("pre", JSON.stringify(about.row, null, 1), { tabindex: "0", "aria-label": "Row" });
    place.replaceChildren(list, scores, element("p", "The row, without its score:"), row);
  }

  document.addEventListener("toggle", (event) => {
    if (event.target.matches?.("details.about") && event.target.open) fill(event.target);
  }, true);

  return { load, details, element, copy };
})();
