"use strict";
// The form that controls playback: buttons, the slider of frames, speed, loop, and keys.
(() => {
  const { player } = motionexp;
  const controls = document.getElementById("controls");
  const field = (name) => controls.elements[name];
  const actions = {
    play: () => (player.isPlaying ? player.pause() : player.play()),
    back: () => player.step(-1),
    forward: () => player.step(1),
  };
  motionexp.controls = { form: controls, field, actions };

  function showTime() {
    field("frame").max = player.frames - 1;
    field("frame").value = player.frame;
    field("frame").setAttribute("aria-valuetext", `frame ${player.frame + 1} of ${player.frames}`);
    field("at").value = `${player.frame + 1} / ${player.frames}`;
  }

  function showState() {
    const button = controls.querySelector("[data-do=play]");
    button.textContent = player.isPlaying ? "Pause" : "Play";
    button.setAttribute("aria-pressed", player.isPlaying);
  }

  player.onFrame.push(showTime);
  player.onState.push(showState);
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.addEventListener("click", (event) => actions[event.target.closest("[data-do]")?.dataset.do]?.());
  controls.addEventListener("input", (event) => {
    if (event.target.name === "frame") {
      player.pause();
      player.seek(Number(event.target.value));
    }
    player.speed = Number(field("speed").value);
    player.loop = field("loop").checked;
  });
  document.addEventListener("keydown", (event) => {
    // A key stays that of the element which has the focus, where the element knows it.
    const known = event.key === " " ? "input, select, textarea, button, summary, a, [tabindex]" : "input, select, textarea, [tabindex], .heat";
    if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest(known)) return;
    const action = { " ": "play", ArrowLeft: "back", ArrowRight: "forward" }[event.key];
    if (!action) return;
    event.preventDefault();
    actions[action]();
  });

  // Called when the page is set up.
  motionexp.controls.start = () => {
    controls.hidden = false;
    for (const video of document.querySelectorAll(".frame video")) {
      player.watch(video);
      video.addEventListener("click", actions.play);
    }
    player.measure();
    showTime();
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches && !location.hash.includes("frame=")) player.play();
  };
})();
