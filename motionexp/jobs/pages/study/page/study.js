// A questionnaire. No server, no library: answers lie in the browser's storage until they are saved as a file.
"use strict";

const CODE = decodeURIComponent(location.hash.slice(1));
const main = document.getElementById("main");
const progress = document.getElementById("progress");
const LETTERS = "ABCDEFGH";
let questionnaire = null;
let state = null;
let shownSince = null; // when the page that is shown was last seen
let videos = [];
let ticking = null;

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children); // texts become text, never markup
  return node;
}

function button(text, onclick, className = "") {
  return element("button", { type: "button", textContent: text, onclick, className });
}

// The state of the answers.

const storageKey = () => `motionexp-study ${questionnaire.study} ${questionnaire.code}`;

function emptyState() {
  const pages = questionnaire.pages.map((_, place) => ({ page: place + 1, seconds: 0, broken: false, answers: {} }));
  return { study: questionnaire.study, code: questionnaire.code, started: null, finished: null, pages };
}

function isState(value) {
  return Boolean(value) && value.study === questionnaire.study && value.code === questionnaire.code
    && Array.isArray(value.pages) && value.pages.length === questionnaire.pages.length
    && value.pages.every((page) => page && typeof page.answers === "object" && page.answers !== null);
}

function load() {
  try {
    const stored = JSON.parse(localStorage.getItem(storageKey()));
    return isState(stored) ? stored : emptyState();
  } catch {
    return emptyState();
  }
}

function store() {
  try {
    localStorage.setItem(storageKey(), JSON.stringify(state));
    return true;
  } catch {
    return false;
  }
}

function missing(place) {
  const { answers } = state.pages[place];
  const columns = questionnaire.pages[place].columns.length;
  return questionnaire.questions.filter(({ name }) => questionnaire.levels.length
    ? Object.keys(answers[name] || {}).length < columns
    : !answers[name]);
}

const isDone = (place) => state.pages[place].broken || missing(place).length === 0;
const doneCount = () => state.pages.filter((_, place) => isDone(place)).length;

// The time that a page is seen.

function stopClock(place) {
  if (shownSince !== null && state.pages[place]) {
    state.pages[place].seconds = Math.round(10 * (state.pages[place].seconds + (performance.now() - shownSince) / 1000)) / 10;
  }
  shownSince = null;
}

// Videos: all play together, and are put in step again when one falls behind.

function video(name, label, place) {
  const node = element("video", { src: `videos/${name}`, muted: true, loop: true, playsInline: true, preload: "auto" });
  node.setAttribute("aria-label", label);
  node.addEventListener("error", () => {
    state.pages[place].broken = true;
    store();
    document.getElementById("broken").textContent =
      "A video cannot be shown here. This page will not count: go on to the next one.";
  });
  videos.push(node);
  return node;
}

function playAll() {
  videos.forEach((node) => { node.currentTime = 0; });
  videos.forEach((node) => node.play().catch(() => {}));
}

function pauseAll() {
  videos.forEach((node) => node.pause());
}

function keepInStep() {
  const first = videos[0];
  if (!first || first.paused) return;
  for (const node of videos.slice(1)) {
    if (Math.abs(node.currentTime - first.currentTime) > 0.06) node.currentTime = first.currentTime;
  }
}

// What is shown.

function show(title, ...children) {
  clearInterval(ticking);
  pauseAll();
  const heading = element("h1", { textContent: title, tabIndex: -1 });
  main.replaceChildren(heading, ...children);
  document.title = title;
  window.scrollTo(0, 0);
  heading.focus({ preventScroll: true });
}

function showStart() {
  videos = [];
  const count = questionnaire.pages.length;
  const next = state.pages.findIndex((_, place) => !isDone(place));
  progress.textContent = state.started ? `${doneCount()} of ${count} pages answered` : "";
  const list = element("ul", {}, ...questionnaire.instructions.map((text) => element("li", { textContent: text })));
  const label = !state.started ? "Start" : next < 0 ? "To the end" : `Go on with page ${next + 1}`;
  const start = button(label, () => {
    state.started ||= new Date().toISOString();
    if (next < 0) showEnd(); else showPage(next);
  }, "main");
  const upload = element("input", { type: "file", accept: ".json,application/json", onchange: () => readFile(upload) });
  const from = element("label", { className: "file" }, "Go on from a file that you saved: ", upload);
  const note = element("p", { id: "note", className: "warning" });
  note.setAttribute("role", "alert");
  if (!store()) note.textContent = "This browser stores nothing: save your answers as a file before you leave.";
  show(questionnaire.title, list, element("div", { className: "row" }, start, from), note,
    element("p", {}, element("a", { href: "instructions.html", target: "_blank", textContent: "Instructions to print" })));
}

async function readFile(upload) {
  const note = document.getElementById("note");
  try {
    const stored = JSON.parse(await upload.files[0].text());
    if (!isState(stored)) throw new Error();
    state = stored;
    store();
    showStart();
  } catch {
    note.textContent = "This file is not of this questionnaire.";
  }
}

function picks(question, place, columns) {
  const choices = columns.map((_, column) => choice(question, question.name, LETTERS[column], LETTERS[column],
    state.pages[place].answers[question.name] === LETTERS[column], () => {
      state.pages[place].answers[question.name] = LETTERS[column];
    }, place));
  return [element("div", { className: "choices" }, ...choices)];
}

function ratings(question, place, columns) {
  return columns.map((_, column) => {
    const letter = LETTERS[column];
    const group = `${question.name} ${letter}`;
    const choices = questionnaire.levels.map((level, number) => choice(question, group, number + 1, `${number + 1} ${level}`,
      (state.pages[place].answers[question.name] || {})[letter] === number + 1, () => {
        state.pages[place].answers[question.name] = { ...state.pages[place].answers[question.name], [letter]: number + 1 };
      }, place));
    const row = element("div", { className: "rated choices" }, element("b", { textContent: letter }), ...choices);
    row.setAttribute("role", "radiogroup");
    row.setAttribute("aria-label", `${question.text} Video ${letter}`);
    return row;
  });
}

function choice(question, group, value, text, checked, onchange, place) {
  const input = element("input", { type: "radio", name: group, value, checked, onchange: () => {
    onchange();
    store();
    showProgress(place);
  } });
  return element("label", {}, input, ` ${text}`);
}

function showProgress(place) {
  progress.textContent = `Page ${place + 1} of ${questionnaire.pages.length}, ${doneCount()} answered`;
}

function showPage(place) {
  videos = [];
  const page = questionnaire.pages[place];
  const reference = element("figure", { className: "reference" },
    element("figcaption", { textContent: "Reference" }), video(page.reference, "Reference", place));
  const columns = page.columns.map((names, column) => element("figure", {},
    element("figcaption", { textContent: LETTERS[column] }),
    ...names.map((name, number) => video(name, names.length > 1
      ? `${LETTERS[column]}, video ${number + 1}` : `Video ${LETTERS[column]}`, place))));
  const questions = questionnaire.questions.map((question) => element("fieldset", {},
    element("legend", { textContent: question.text }),
    element("p", { className: "about", textContent: question.about }),
    ...(questionnaire.levels.length ? ratings : picks)(question, place, page.columns)));
  const toggle = button("Pause", () => {
    const isPaused = videos[0].paused;
    if (isPaused) videos.forEach((node) => node.play().catch(() => {})); else pauseAll();
    toggle.textContent = isPaused ? "Pause" : "Play";
  });
  const again = button("From the start", () => { playAll(); toggle.textContent = "Pause"; });
  const broken = element("p", { id: "broken", className: "warning" });
  const lacking = element("p", { id: "lacking", className: "warning" });
  for (const node of [broken, lacking]) node.setAttribute("role", "alert");
  show(`Page ${place + 1}`,
    element("p", {}, "Description of the new videos: ", element("q", { textContent: page.caption })),
    element("div", { className: "videos" }, reference, ...columns),
    element("div", { className: "row" }, toggle, again), broken, ...questions, lacking, turning(place));
  showProgress(place);
  shownSince = document.hidden ? null : performance.now();
  ticking = setInterval(keepInStep, 200);
  main.dataset.page = place;
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) toggle.textContent = "Play"; else playAll();
}

function turning(place) {
  const back = button("Back", () => leave(place, place - 1));
  const next = button("Next", () => {
    const lacking = state.pages[place].broken ? [] : missing(place);
    if (lacking.length) {
      document.getElementById("lacking").textContent = `Please answer: ${lacking.map(({ text }) => text).join(" ")}`;
      return;
    }
    leave(place, place + 1);
  }, "main");
  const save = button("Save and stop", () => { stopClock(place); store(); download(); shownSince = performance.now(); });
  return element("div", { className: "row" }, ...(place ? [back] : []), next, save);
}

function leave(place, target) {
  stopClock(place);
  store();
  if (target < questionnaire.pages.length) showPage(target); else showEnd();
}

function answersText() {
  return JSON.stringify(state, null, 1);
}

function download() {
  const url = URL.createObjectURL(new Blob([answersText()], { type: "application/json" }));
  element("a", { href: url, download: `answers-${questionnaire.code}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

function showEnd() {
  videos = [];
  delete main.dataset.page;
  const count = questionnaire.pages.length;
  const open = state.pages.findIndex((_, place) => !isDone(place));
  if (open < 0) state.finished ||= new Date().toISOString();
  store();
  progress.textContent = `${doneCount()} of ${count} pages answered`;
  const send = questionnaire.contact ? `Then send the file to ${questionnaire.contact}.`
    : "Then send the file to whoever gave you the link.";
  const text = element("textarea", { readOnly: true, value: answersText() });
  text.setAttribute("aria-label", "Your answers as text");
  const copied = element("span", {});
  copied.setAttribute("role", "status");
  const copy = button("Copy them", async () => {
    text.select();
    try { await navigator.clipboard.writeText(text.value); } catch { document.execCommand("copy"); }
    copied.textContent = "Copied.";
  });
  show(open < 0 ? "Thank you" : `Page ${open + 1} is not answered`,
    element("p", { textContent: `Save your answers. ${send}` }),
    element("div", { className: "row" }, button("Save my answers as a file", download, "main"), copy, copied,
      button(open < 0 ? "Back to the pages" : `To page ${open + 1}`, () => showPage(open < 0 ? count - 1 : open))),
    text);
}

document.addEventListener("visibilitychange", () => {
  const place = Number(main.dataset.page ?? -1);
  if (place < 0 || !state) return;
  if (document.hidden) { stopClock(place); store(); } else shownSince = performance.now();
});
window.addEventListener("pagehide", () => {
  const place = Number(main.dataset.page ?? -1);
  if (place >= 0 && state) { stopClock(place); store(); }
});
window.addEventListener("hashchange", () => location.reload());

function begin() {
  if (!/^[0-9]+-[a-z]+$/.test(CODE)) {
    show("A link is missing a part", element("p", { textContent: "Open the link that you were sent, with all that follows the sign #." }));
    return;
  }
  const script = element("script", { src: `questionnaires/${CODE}.js` });
  script.onload = () => {
    questionnaire = window.QUESTIONNAIRE;
    state = load();
    showStart();
  };
  script.onerror = () => show("There is no such questionnaire",
    element("p", { textContent: `The link ends in ${CODE}. Compare it with the one that you were sent.` }));
  document.head.append(script);
}

begin();
