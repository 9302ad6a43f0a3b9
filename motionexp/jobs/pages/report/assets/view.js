"use strict";
// Filters, order and the state of the view, which the address holds.
(() => {
  const { player, overlay, element, copy } = motionexp;
  const { form: controls, field, actions, start } = motionexp.controls;
  const groups = document.getElementById("groups");
  const cards = [...groups.querySelectorAll(".card")];
  const references = new Map([...document.querySelectorAll("#references .card")].map((card) => [card.dataset.reference, card]));
  const isBeside = Boolean(document.querySelector(".beside"));
  const order = new Map(cards.map((card, index) => [card, index]));
  const scores = new Map(cards.map((card) => [card, JSON.parse(card.dataset.scores)]));
  const filters = [...controls.querySelectorAll(".filter")];
  const SIMPLE = ["speed", "overlay", "curve", "size", "group", "sort"];
  const CHECKS = ["loop", "reverse"];
  const defaults = Object.fromEntries([...SIMPLE.map((name) => [name, field(name).value]), ...CHECKS.map((name) => [name, field(name).checked])]);
  const attribute = (name) => name.replace(/-(.)/g, (_, letter) => letter.toUpperCase());

  function chosen() {
    const wanted = new Map();
    for (const filter of filters) {
      const values = [...filter.querySelectorAll("input:checked")].map((box) => box.value);
      const words = values.length ? values.map((value) => value || "–").join(", ") : "all";
      filter.querySelector(".chosen").textContent = words.length > 40 ? `${values.length} values` : words;
      if (values.length) wanted.set(attribute(filter.dataset.filter), new Set(values));
    }
    return wanted;
  }

  function compare(name, reverse) {
    const lower = field("sort").selectedOptions[0].dataset.better === "lower";
    const sign = (lower ? 1 : -1) * (reverse ? -1 : 1);
    return (first, second) => {
      const [a, b] = [scores.get(first)[name], scores.get(second)[name]];
      if (a === undefined || b === undefined) return (a === undefined) - (b === undefined) || order.get(first) - order.get(second);
      return sign * (a - b) || order.get(first) - order.get(second);
    };
  }

  function arrange() {
    // 1. Which cards, in which order.
    const wanted = chosen();
    const shown = cards.filter((card) => [...wanted].every(([name, values]) => values.has(card.dataset[name])));
    const sort = field("sort").value;
    const reverse = field("reverse").checked;
    if (sort) shown.sort(compare(sort, reverse));
    else if (reverse) shown.reverse();
    // 2. The groups, in the order of their first cards.
    const group = field("group").value;
    const byGroup = new Map();
    for (const card of shown) {
      const name = group ? card.dataset[group] : "";
      if (!byGroup.has(name)) byGroup.set(name, []);
      byGroup.get(name).push(card);
    }
    const sections = [...byGroup].map(([name, members]) => {
      const section = element("section", undefined, { class: "group" });
      if (name) section.append(element("h2", name));
      const grid = element("div", undefined, { class: "grid" });
      if (!isBeside && group === "reference" && references.has(name)) grid.append(references.get(name));
      grid.append(...members);
      section.append(grid);
      return section;
    });
    groups.replaceChildren(...sections);
    groups.classList.toggle("by-caption", group === "caption");
    controls.querySelector(".status").textContent = `${shown.length} of ${cards.length} samples`;
    player.measure();
    player.refresh();
  }

  function apply() {
    player.speed = Number(field("speed").value);
    player.loop = field("loop").checked;
    overlay.kind = field("overlay").value;
    overlay.curve = field("curve").value;
    document.documentElement.style.setProperty("--card", `${field("size").value}px`);
    overlay.refresh();
  }

  // The state of the view in the address: what differs from the defaults.
  function state() {
    const query = new URLSearchParams();
    for (const filter of filters) for (const box of filter.querySelectorAll("input:checked")) query.append(box.name, box.value);
    for (const name of SIMPLE) if (field(name).value !== defaults[name]) query.set(name, field(name).value);
    for (const name of CHECKS) if (field(name).checked !== defaults[name]) query.set(name, field(name).checked);
    if (!player.isPlaying) query.set("frame", player.frame);
    return query.toString();
  }

  function restore() {
    const query = new URLSearchParams(location.hash.slice(1));
    for (const filter of filters) {
      for (const box of filter.querySelectorAll("input")) box.checked = query.getAll(box.name).includes(box.value);
    }
    for (const name of SIMPLE) field(name).value = query.get(name) ?? defaults[name];
    for (const name of SIMPLE) if (field(name).selectedIndex === -1) field(name).value = defaults[name];
    for (const name of CHECKS) field(name).checked = query.has(name) ? query.get(name) === "true" : defaults[name];
    apply();
    arrange();
    if (query.has("frame")) {
      player.pause();
      player.seek(Number(query.get("frame")) || 0);
    }
  }

  function remember() {
    const text = state();
    try {
      history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
    } catch {
      // A browser that does not let pages of a disk do this: the link is still copied right.
    }
  }

  Object.assign(actions, {
    reset: () => {
      for (const filter of filters) for (const box of filter.querySelectorAll("input")) box.checked = false;
      arrange();
      remember();
    },
    link: async () => {
      const link = `${location.href.split("#")[0]}#${state()}`;
      const status = controls.querySelector(".status");
      if (await copy(link)) status.textContent = "The link is copied.";
      else {
        const box = element("input", undefined, { readonly: "", "aria-label": "Link to this view" });
        box.value = link;
        status.replaceChildren(box);
        box.select();
      }
    },
  });

  controls.addEventListener("input", (event) => {
    if (event.target.closest(".filter") || ["group", "sort", "reverse"].includes(event.target.name)) arrange();
    apply();
    remember();
  });
  addEventListener("hashchange", restore);
  new ResizeObserver(() => {
    document.documentElement.style.setProperty("--controls", `${controls.offsetHeight}px`);
  }).observe(controls);

  overlay.ranges = JSON.parse(controls.dataset.ranges);
  start();
  restore();
})();
