"use strict";
// What is drawn over and under the videos: optical flow, tracked points, and scores by frame.
(() => {
  const { player, load, element } = motionexp;
  const UNITS = 1000; // places are thousandths of the frame
  const TRAIL = 4; // frames of a track that stay visible
  const overlay = { kind: "", curve: "", ranges: {} };
  motionexp.overlay = overlay;

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  async function draw(card) {
    const video = card.querySelector("video");
    const canvas = card.querySelector(".frame canvas");
    if (!video || !canvas) return;
    const kind = overlay.kind;
    if (!kind) {
      canvas.hidden = true;
      return;
    }
    const about = await load(card.dataset.key);
    if (kind !== overlay.kind) return;
    canvas.hidden = false;
    const ratio = window.devicePixelRatio || 1;
    const width = Math.round(video.clientWidth * ratio);
    const height = Math.round(video.clientHeight * ratio);
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const pen = canvas.getContext("2d");
    pen.clearRect(0, 0, width, height);
    pen.lineWidth = 1.5 * ratio;
    pen.lineCap = "round";
    const place = (x, y) => [(x / UNITS) * width, (y / UNITS) * height];
    const frame = player.frameOf(video, player.time);
    const strokes = kind === "flow" ? arrows(about.flow?.[frame], place) : trails(about.tracks, frame, place);
    // Dark below light: it can be seen on every picture.
    for (const [style, extra] of [["rgb(0 0 0 / 0.6)", 1.5], [colour("--overlay"), 0]]) {
      pen.strokeStyle = pen.fillStyle = style;
      pen.lineWidth = (1.2 + extra) * ratio;
      for (const points of strokes) {
        pen.beginPath();
        points.forEach(([x, y], index) => (index ? pen.lineTo(x, y) : pen.moveTo(x, y)));
        pen.stroke();
        const [x, y] = points[points.length - 1];
        pen.beginPath();
        pen.arc(x, y, (1.4 + extra / 2) * ratio, 0, 7);
        pen.fill();
      }
    }
  }

  function arrows(numbers = [], place) {
    const strokes = [];
    for (let at = 0; at + 3 < numbers.length; at += 4) {
      const [x, y, dx, dy] = numbers.slice(at, at + 4);
      strokes.push([place(x, y), place(x + 2 * dx, y + 2 * dy)]);
    }
    return strokes;
  }

  function trails(tracks = [], frame, place) {
    const strokes = [];
    for (const track of tracks) {
      if (frame >= track.length / 2) continue; // lost before
      const points = [];
      for (let at = Math.max(0, frame - TRAIL); at <= frame; at += 1) points.push(place(track[2 * at], track[2 * at + 1]));
      strokes.push(points);
    }
    return strokes;
  }

  async function plot(card) {
    const box = card.querySelector(".curve");
    if (!box) return;
    const name = overlay.curve;
    box.hidden = !name;
    if (!name || box.dataset.shown === name) return;
    box.dataset.shown = name;
    const values = (await load(card.dataset.key)).series?.[name];
    if (name !== overlay.curve) return;
    if (!values) {
      box.replaceChildren(element("p", "no values by frame", { class: "quiet" }));
      return;
    }
    const frames = Number(card.querySelector("video")?.dataset.frames || values.length);
    const shift = (frames - values.length) / 2; // a value of two frames lies between them
    const [low, high] = overlay.ranges[name] || [0, 1];
    const line = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    box.replaceChildren(element("p", values.map((value) => (value === null ? "none" : value.toFixed(2))).join(", "), { class: "hidden" }));
    card.curve = new uPlot({
      width: box.clientWidth,
      height: 90,
      padding: [7, 4, 7, 0],
      legend: { show: false },
      cursor: { show: false },
      scales: { x: { time: false, range: [0, frames - 1] }, y: { range: [low, high] } },
      axes: [{ ...line, show: false }, { ...line, size: 36, gap: 2, font: "10px system-ui",
        splits: () => (low < 0 && high > 0 ? [low, 0, high] : [low, high]), values: (_, ticks) => ticks.map((tick) => tick.toFixed(2)) }],
      series: [{}, { stroke: colour("--accent"), width: 2, points: { show: false }, spanGaps: false }],
    }, [values.map((_, index) => index + shift), values], box);
    card.cursor = element("div", undefined, { class: "cursor" });
    card.curve.over.append(card.cursor);
    move(card);
  }

  function move(card) {
    if (!card.cursor || !overlay.curve) return;
    const frames = Number(card.querySelector("video")?.dataset.frames || player.frames);
    const share = Math.min(1, (player.frameOf(card.querySelector("video"), player.time)) / Math.max(1, frames - 1));
    card.cursor.style.transform = `translateX(${share * card.curve.over.clientWidth}px)`;
  }

  overlay.refresh = () => {
    for (const box of document.querySelectorAll(".curve")) box.hidden = !overlay.curve;
    for (const canvas of document.querySelectorAll(".frame canvas")) canvas.hidden = !overlay.kind;
    for (const video of player.visible) update(video.closest(".card"));
  };
  function update(card) {
    draw(card);
    plot(card).then(() => move(card));
  }
  player.onFrame.push(() => {
    if (overlay.kind || overlay.curve) for (const video of player.visible) update(video.closest(".card"));
  });
})();
