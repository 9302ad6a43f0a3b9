"use strict";
// One clock for all videos of a page. Only visible videos are decoded, and all show the same moment.
(() => {
  const SEEK_PAUSE = 400; // ms between two seeks of a playing video
  const GATHER = 600; // ms that the clock waits at most for videos to reach its time
  const player = { time: 0, isPlaying: false, speed: 1, loop: true, fps: 8, frames: 1, visible: new Set(), onFrame: [], onState: [] };
  motionexp.player = player;
  let last = null; // the time of the last animation frame, in ms
  let shown = -1; // the frame that was announced last
  let gathering = null; // until when the clock waits for videos that seek

  const number = (video, name) => Number(video.dataset[name]);
  const length = (video) => number(video, "frames") / number(video, "fps");
  const frameOf = (video, time) =>
    Math.max(0, Math.min(number(video, "frames") - 1, Math.floor(time * number(video, "fps") + 1e-6)));
  player.frameOf = frameOf;
  Object.defineProperty(player, "frame", { get: () => Math.min(player.frames - 1, Math.floor(player.time * player.fps + 1e-6)) });

  // Videos that are far away let go of their decoder: a browser has few of them.
  const near = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting && !target.hasAttribute("src")) target.src = target.dataset.src;
      if (isIntersecting) target.preload = "auto";
      if (!isIntersecting && target.preload === "auto") {
        target.preload = "none";
        target.removeAttribute("src");
        target.load();
      }
    }
  }, { rootMargin: "100% 0px" });
  const seen = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) player.visible.add(target);
      else {
        player.visible.delete(target);
        target.pause();
      }
    }
    measure();
    shown = -1;
  });

  player.watch = (video) => {
    video.dataset.src = video.src;
    video.controls = false;
    video.disableRemotePlayback = true;
    near.observe(video);
    seen.observe(video);
    video.addEventListener("loadeddata", () => {
      if (player.visible.has(video)) follow(video, performance.now());
    });
  };

  function measure() {
    let longest = 0;
    for (const video of document.querySelectorAll(".frame video")) {
      longest = Math.max(longest, length(video));
      player.fps = Math.max(player.fps, number(video, "fps"));
    }
    player.frames = Math.max(1, Math.round(longest * player.fps));
  }
  player.measure = measure;

  function still(video) {
    // The middle of a frame: its edges are rounded.
    return (frameOf(video, player.time) + 0.5) / number(video, "fps");
  }

  function follow(video, now) {
    if (video.readyState < 1) return;
    const fps = number(video, "fps");
    if (!player.isPlaying || gathering !== null || player.time >= length(video) - 0.5 / fps) {
      if (!video.paused) video.pause();
      if (Math.abs(video.currentTime - still(video)) > 0.3 / fps && !video.seeking) video.currentTime = still(video);
      return;
    }
    if (video.paused) video.play().catch(() => {});
    const drift = video.currentTime - player.time;
    if (Math.abs(drift) > 0.45 / fps && !video.seeking && now - (video.soughtAt || 0) > SEEK_PAUSE) {
      video.soughtAt = now;
      video.currentTime = player.time + 0.02 * player.speed;
    }
    // What is a little late plays a little faster.
    const rate = player.speed * Math.min(1.5, Math.max(0.6, 1 - drift / 0.3));
    if (Math.abs(video.playbackRate - rate) > 0.02 * player.speed) video.playbackRate = rate;
  }

  function gather(now) {
    gathering = now + GATHER;
    for (const video of player.visible) follow(video, now);
  }

  function isGathered(now) {
    if (now > gathering) return true;
    return [...player.visible].every((video) =>
      video.readyState >= 2 && !video.seeking && Math.abs(video.currentTime - still(video)) < 0.5 / number(video, "fps"));
  }

  function tick(now) {
    const passed = last === null ? 0 : (now - last) / 1000;
    last = now;
    if (player.isPlaying && passed > 1) gather(now); // the page was in the background
    else if (player.isPlaying && gathering !== null) {
      if (isGathered(now)) gathering = null;
    } else if (player.isPlaying) {
      player.time += passed * player.speed;
      if (player.time >= player.frames / player.fps) {
        if (player.loop) {
          player.time = 0;
          gather(now);
        } else {
          player.time = (player.frames - 0.5) / player.fps;
          player.pause();
        }
      }
    }
    for (const video of player.visible) follow(video, now);
    if (player.frame !== shown) {
      shown = player.frame;
      for (const listener of player.onFrame) listener(shown);
    }
    requestAnimationFrame(tick);
  }

  player.play = () => {
    player.isPlaying = true;
    if (player.frame >= player.frames - 1) player.time = 0;
    gather(performance.now());
    for (const listener of player.onState) listener();
  };
  player.pause = () => {
    player.isPlaying = false;
    gathering = null;
    player.time = (player.frame + 0.5) / player.fps;
    for (const listener of player.onState) listener();
  };
  player.seek = (frame) => {
    player.time = (Math.max(0, Math.min(player.frames - 1, frame)) + 0.5) / player.fps;
    if (player.isPlaying) gather(performance.now());
  };
  player.step = (by) => {
    if (player.isPlaying) player.pause();
    player.seek((player.frame + by + player.frames) % player.frames);
  };
  player.refresh = () => { shown = -1; };
  requestAnimationFrame(tick);
})();
