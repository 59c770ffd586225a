"use strict";
// The cursor of the time axis. Everything that it shows stands in the page already.
(() => {
  const byId = (id) => document.getElementById(id);
  const axis = byId("axis"), ruler = byId("ruler"), large = byId("frame-large");
  const data = Object.fromEntries(Object.entries(axis.dataset).map(([name, value]) => [name, Number(value)]));
  const frames = [...document.querySelectorAll("img.frame")];
  let pinned = data.at;

  const trimmed = (value, digits) => String(Number(value.toFixed(digits)));

  // The same words as words.clock.
  function clock(seconds) {
    const hundredths = Math.round(Math.abs(seconds) * 100);
    const sign = seconds < -0.005 ? "\u2212" : "";
    if (hundredths < 6000) return `${sign}${trimmed(hundredths / 100, 2)}\u00a0s`;
    const tenths = Math.round(hundredths / 10), rest = tenths % 600, minutes = Math.floor(tenths / 600);
    const tail = String(Math.floor(rest / 10)).padStart(2, "0") + (rest % 10 ? `.${rest % 10}` : "");
    if (minutes < 60) return `${sign}${minutes}:${tail}`;
    return `${sign}${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${tail}`;
  }

  const clamp = (seconds) => Math.min(data.end, Math.max(data.start, seconds));
  const distance = (frame, seconds) => Math.abs(Number(frame.dataset.seconds) - seconds);

  function show(seconds) {
    const percent = `${(100 * (seconds - data.start)) / (data.end - data.start)}%`;
    for (const line of document.querySelectorAll("#axis line.cursor")) {
      line.setAttribute("x1", percent);
      line.setAttribute("x2", percent);
    }
    document.querySelector("#ruler .handle").setAttribute("x", percent);
    byId("now").textContent = clock(seconds);
    byId("first-note").hidden = seconds !== data.at;
    if (frames.length) {
      const near = frames.reduce((a, b) => (distance(b, seconds) < distance(a, seconds) ? b : a));
      if (large.src !== near.src) large.src = near.src;
      large.dataset.seconds = near.dataset.seconds;
      byId("frame-time").textContent = `frame at ${clock(Number(near.dataset.seconds))}`;
    }
  }

  function pin(seconds) {
    pinned = clamp(seconds);
    show(pinned);
    ruler.setAttribute("aria-valuenow", pinned.toFixed(2));
    ruler.setAttribute("aria-valuetext", clock(pinned));
  }

  function timeAt(event) {
    const box = ruler.getBoundingClientRect();
    return clamp(data.start + ((event.clientX - box.left) / box.width) * (data.end - data.start));
  }

  function go(seconds) {
    pin(seconds);
    const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    byId("time").scrollIntoView({ behavior: still ? "auto" : "smooth", block: "start" });
    ruler.focus({ preventScroll: true });
  }

  const keys = {
    ArrowRight: () => pinned + data.step, ArrowUp: () => pinned + data.step,
    ArrowLeft: () => pinned - data.step, ArrowDown: () => pinned - data.step,
    PageUp: () => pinned + (data.end - data.start) / 10, PageDown: () => pinned - (data.end - data.start) / 10,
    Home: () => data.start, End: () => data.end,
  };

  const attributes = {
    role: "slider", tabindex: "0", "aria-label": "Time in the file", "aria-orientation": "horizontal",
    "aria-valuemin": data.start, "aria-valuemax": data.end,
  };
  for (const [name, value] of Object.entries(attributes)) ruler.setAttribute(name, value);
  for (const button of document.querySelectorAll("button[data-go]")) {
    button.disabled = false;
    button.addEventListener("click", () => go(Number(button.dataset.go)));
  }
  for (const strip of document.querySelectorAll("[data-span-start]")) {
    strip.addEventListener("click", (event) => {
      const box = strip.getBoundingClientRect(), { spanStart, spanSeconds } = strip.dataset;
      go(Number(spanStart) + ((event.clientX - box.left) / box.width) * Number(spanSeconds));
    });
  }
  ruler.addEventListener("keydown", (event) => {
    if (!(event.key in keys) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    pin(keys[event.key]());
  });
  const onTime = (event) => event.target.closest(".plot, .ruler, .strip");
  axis.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !onTime(event)) return;
    pin(timeAt(event));
    event.preventDefault();
    ruler.focus({ preventScroll: true });
  });
  axis.addEventListener("pointermove", (event) => {
    if (event.pointerType === "mouse" && !event.buttons) show(onTime(event) ? timeAt(event) : pinned);
    else if (event.buttons & 1 && onTime(event)) pin(timeAt(event));
  });
  axis.addEventListener("pointerleave", () => show(pinned));
  document.documentElement.classList.add("scripted");
  pin(data.at);
})();
