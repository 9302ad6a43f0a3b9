"use strict";
// Heat maps of probes: a cell shows its video beside the reference and the control, in step.
(() => {
  const { form: controls, field, start } = motionexp.controls;
  const ranges = JSON.parse(controls.dataset.ranges);
  const buttons = [...document.querySelectorAll(".heat button")];
  const values = new Map(buttons.map((button) => [button, JSON.parse(button.dataset.values)]));

  function colour() {
    const name = field("metric").value;
    const [low, high] = ranges[name] || [0, 1];
    for (const button of buttons) {
      const value = values.get(button)[name];
      button.textContent = value === undefined ? "–" : value.toFixed(2);
      const share = value === undefined ? 0 : (value - low) / (high - low || 1);
      button.style.setProperty("--share", `${Math.round(100 * share)}%`);
    }
  }

  function choose(button) {
    const unit = button.closest(".unit");
    for (const cell of unit.querySelectorAll(".heat button")) cell.setAttribute("aria-pressed", cell === button);
    const video = unit.querySelector(".chosen video");
    if (!video) return;
    const path = video.dataset.src.replace(/[^/]*$/, "");
    video.dataset.src = `${path}${encodeURIComponent(button.dataset.key)}.mp4`;
    video.poster = `${path}${encodeURIComponent(button.dataset.key)}.webp`;
    video.src = video.dataset.src;
    unit.querySelector(".chosen figcaption").textContent = button.getAttribute("aria-label");
    remember();
  }

  function apply() {
    const unit = field("unit").value;
    for (const section of document.querySelectorAll(".unit")) section.hidden = Boolean(unit) && section.id !== unit;
    colour();
  }

  function remember() {
    const query = new URLSearchParams();
    for (const name of ["metric", "unit"]) if (field(name).selectedIndex > 0) query.set(name, field(name).value);
    for (const button of document.querySelectorAll(".heat [aria-pressed=true]")) query.append("pair", button.dataset.key);
    try {
      history.replaceState(null, "", `#${query}`);
    } catch {
      // Some browsers do not let pages of a disk do this.
    }
  }

  function restore() {
    const query = new URLSearchParams(location.hash.slice(1));
    for (const name of ["metric", "unit"]) if (query.has(name)) field(name).value = query.get(name);
    const chosen = query.getAll("pair");
    for (const button of buttons) if (chosen.includes(button.dataset.key)) choose(button);
    apply();
  }

  controls.addEventListener("input", (event) => {
    if (!["metric", "unit"].includes(event.target.name)) return;
    apply();
    remember();
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest(".heat button");
    if (button) choose(button);
  });
  // The arrow keys walk through the map, as through a grid.
  document.addEventListener("keydown", (event) => {
    const button = event.target.closest?.(".heat button");
    const [across, down] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] || [];
    if (!button || across === undefined) return;
    event.preventDefault();
    const cell = button.closest("td");
    const row = button.closest("tr");
    const rows = [...row.parentElement.rows];
    const target = rows[rows.indexOf(row) + down]?.cells[cell.cellIndex + across]?.querySelector("button");
    if (target) {
      target.focus();
      choose(target);
    }
  });
  start();
  restore();
})();
