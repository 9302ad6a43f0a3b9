"use strict";
// The plots of the overview. A click on a point opens its samples.
(() => {
  const COLOURS = ["--line-1", "--line-2", "--line-3", "--line-4", "--line-5", "--line-6", "--line-7", "--line-8"];
  const SHAPES = ["●", "■", "▲", "◆"];
  const NEAR = 24; // pixels from a point that a click may be
  const shape = (index) => Math.floor(index / COLOURS.length) % SHAPES.length || index % SHAPES.length;
  const style = () => getComputedStyle(document.documentElement);
  const shown = (value, low, high) =>
    value === null ? "–" : `${value.toFixed(2)}${low === null ? "" : ` [${low.toFixed(2)}, ${high.toFixed(2)}]`}`;

  // The points of the chosen lines; of all where none is chosen.
  function points(plot, chosen) {
    const all = [];
    plot.lines.forEach((line, index) => {
      if (chosen.size && !chosen.has(index)) return;
      for (const point of line.points) if (point.x_mean !== null && point.y_mean !== null) all.push({ ...point, line: index, name: line.name });
    });
    return all;
  }

  // One series a line over all x of the plot, in ascending order; null where the line has no point.
  function columns(plot, all) {
    const sorted = [...all].sort((first, second) => first.x_mean - second.x_mean);
    const series = plot.lines.map((_, index) => sorted.map((point) => (point.line === index ? point.y_mean : null)));
    return [sorted.map((point) => point.x_mean), ...series];
  }

  function range(all, axis) {
    const values = all.flatMap((point) => [point[`${axis}_mean`], point[`${axis}_low`], point[`${axis}_high`]]).filter((value) => value !== null);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const margin = (high - low || 1) * 0.06;
    return [low - margin, high + margin];
  }

  function mark(pen, shape, x, y, size) {
    pen.beginPath();
    if (shape === 0) pen.arc(x, y, size, 0, 7);
    else if (shape === 1) pen.rect(x - size, y - size, 2 * size, 2 * size);
    else if (shape === 2) pen.moveTo(x, y - 1.2 * size), pen.lineTo(x + 1.1 * size, y + size), pen.lineTo(x - 1.1 * size, y + size), pen.closePath();
    else pen.moveTo(x, y - 1.3 * size), pen.lineTo(x + 1.3 * size, y), pen.lineTo(x, y + 1.3 * size), pen.lineTo(x - 1.3 * size, y), pen.closePath();
    pen.fill();
  }

  function draw(chart, plot, all, colours, most) {
    const pen = chart.ctx;
    const few = new Set(all.map((point) => point.line)).size <= most;
    const ratio = devicePixelRatio || 1;
    const at = (value, axis) => chart.valToPos(value, axis, true);
    pen.save();
    // 1. Bands of the curves, and bars of the plane.
    plot.lines.forEach((_, index) => {
      const line = all.filter((point) => point.line === index).sort((a, b) => a.x_mean - b.x_mean);
      pen.fillStyle = pen.strokeStyle = colours[index % colours.length];
      pen.lineWidth = 1 * ratio;
      const banded = line.filter((point) => few && point.y_low !== null);
      if (plot.kind === "curves" && banded.length > 1) {
        pen.globalAlpha = 0.15;
        pen.beginPath();
        for (const point of banded) pen.lineTo(at(point.x_mean, "x"), at(point.y_low, "y"));
        for (const point of banded.reverse()) pen.lineTo(at(point.x_mean, "x"), at(point.y_high, "y"));
        pen.fill();
      } else {
        pen.globalAlpha = 0.6;
        for (const point of banded) {
          pen.beginPath();
          pen.moveTo(at(point.x_mean, "x"), at(point.y_low, "y"));
          pen.lineTo(at(point.x_mean, "x"), at(point.y_high, "y"));
          if (point.x_low !== null) {
            pen.moveTo(at(point.x_low, "x"), at(point.y_mean, "y"));
            pen.lineTo(at(point.x_high, "x"), at(point.y_mean, "y"));
          }
          pen.stroke();
        }
      }
      pen.globalAlpha = 1;
      // 2. Points, in a shape of their line.
      for (const point of line) mark(pen, shape(index), at(point.x_mean, "x"), at(point.y_mean, "y"), 4 * ratio);
    });
    pen.restore();
  }

  function nearest(chart, all, left, top) {
    let best = null;
    for (const point of all) {
      const distance = Math.hypot(chart.valToPos(point.x_mean, "x") - left, chart.valToPos(point.y_mean, "y") - top);
      if (distance < NEAR && (!best || distance < best.distance)) best = { point, distance };
    }
    return best?.point;
  }

  function build(box, chosen, most) {
    const plot = JSON.parse(box.dataset.plot);
    const all = points(plot, chosen);
    box.replaceChildren();
    if (!all.length) {
      box.textContent = "No values.";
      return;
    }
    const css = style();
    const colours = COLOURS.map((name) => css.getPropertyValue(name).trim());
    const axis = {
      stroke: css.getPropertyValue("--text").trim(),
      grid: { stroke: css.getPropertyValue("--line").trim(), width: 1 },
      ticks: { stroke: css.getPropertyValue("--line").trim() },
      font: "12px system-ui", labelFont: "12px system-ui", labelSize: 18,
    };
    const tip = document.createElement("div");
    tip.className = "tip";
    tip.hidden = true;
    const chart = new uPlot({
      width: box.clientWidth,
      height: 280,
      legend: { show: false },
      cursor: { x: false, y: false, points: { show: false }, drag: { x: false, y: false } },
      scales: {
        x: { time: false, range: plot.kind === "curves" ? [-20, 1020] : range(all, "x") },
        y: { range: range(all, "y") },
      },
      axes: [{ ...axis, label: plot.x, size: 34 }, { ...axis, label: plot.y, size: 48 }],
      series: [{}, ...plot.lines.map((_, index) => ({
        stroke: colours[index % colours.length], width: 2, points: { show: false }, spanGaps: true,
      }))],
      hooks: { draw: [(self) => draw(self, plot, all, colours, most)] },
    }, columns(plot, all), box);
    chart.over.append(tip);
    chart.over.addEventListener("mousemove", (event) => {
      const point = nearest(chart, all, event.offsetX, event.offsetY);
      chart.over.style.cursor = point ? "pointer" : "default";
      tip.hidden = !point;
      if (!point) return;
      tip.textContent = `${plot.lines.length > 1 ? `${point.name}: ` : ""}${point.words}\n${plot.x}: ${shown(point.x_mean, point.x_low, point.x_high)}\n`
        + `${plot.y}: ${shown(point.y_mean, point.y_low, point.y_high)}\n${point.count} samples of ${point.references} references`;
      const left = chart.valToPos(point.x_mean, "x");
      tip.style.left = left > chart.over.clientWidth / 2 ? "auto" : `${left + 10}px`;
      tip.style.right = left > chart.over.clientWidth / 2 ? `${chart.over.clientWidth - left + 10}px` : "auto";
      tip.style.top = `${Math.max(0, chart.valToPos(point.y_mean, "y") - 30)}px`;
    });
    chart.over.addEventListener("mouseleave", () => { tip.hidden = true; });
    chart.over.addEventListener("click", (event) => {
      const point = nearest(chart, all, event.offsetX, event.offsetY);
      if (point) location.href = `samples.html#${point.query}`;
    });
  }

  // The names of a group's lines, which are buttons, and its plots.
  function group(box) {
    const names = [...box.querySelectorAll(".legend button")];
    const css = style();
    const plots = () => {
      const chosen = new Set(names.flatMap((name, index) => (name.getAttribute("aria-pressed") === "true" ? [index] : [])));
      for (const plot of box.querySelectorAll("[data-plot]")) build(plot, chosen, Number(box.dataset.most));
    };
    names.forEach((name, index) => {
      const sign = name.querySelector("span");
      sign.textContent = SHAPES[shape(index)];
      sign.style.color = css.getPropertyValue(COLOURS[index % COLOURS.length]).trim();
      name.onclick = () => {
        name.setAttribute("aria-pressed", name.getAttribute("aria-pressed") !== "true");
        plots();
      };
    });
    plots();
  }

  function all() {
    document.querySelectorAll(".group").forEach(group);
  }
  all();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
  let waiting = null;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(all, 150);
  });
})();
