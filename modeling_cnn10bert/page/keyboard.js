// Arrow keys walk through the results and play them, space pauses, "/" leads to the search field.
(() => {
  const hits = () => [...document.querySelectorAll(".hits .hit")];
  const selected = () => document.querySelector(".hit[aria-current]");
  const player = (element) => element?.querySelector("audio");
  const field = () => document.querySelector("#text textarea, #text input");

  function writes(element) {
    return element.isContentEditable || element.matches("textarea, select, input:not([type=checkbox], [type=radio])");
  }

  function bring(element, block) {
    const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    element.scrollIntoView({ block, behavior: still ? "auto" : "smooth" });
  }

  function silence(audio) {
    document.querySelectorAll("audio").forEach((other) => other !== audio && other.pause());
  }

  function play(audio) {
    silence(audio);
    audio?.play().catch(() => {}); // interrupted by the next key, or the file is gone: the player shows it
  }

  function select(hit) {
    selected()?.removeAttribute("aria-current");
    hits().forEach((other) => (other.tabIndex = -1));
    hit.setAttribute("aria-current", "true");
    hit.tabIndex = 0;
  }

  function walk(step) {
    const all = hits();
    const next = all[Math.min(Math.max(all.indexOf(selected()) + step, 0), all.length - 1)];
    if (!next) return;
    select(next);
    next.focus({ preventScroll: true });
    bring(next, "nearest");
    const audio = player(next);
    if (audio) audio.currentTime = 0;
    play(audio);
  }

  function pause() {
    const audio = player(selected()) || [...document.querySelectorAll("audio")].find((one) => !one.paused);
    if (audio) audio.paused ? play(audio) : audio.pause();
    return Boolean(audio);
  }

  const steps = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };

  // In the capture phase: the arrows of a focused player would wind and change its loudness.
  document.addEventListener("keydown", (event) => {
    const target = event.target;
    if (event.ctrlKey || event.altKey || event.metaKey || writes(target)) return;
    if (event.key in steps && hits().length) walk(steps[event.key]);
    else if (event.key === " " && !target.closest("button, a, label, summary, input") && pause()) null;
    else if (event.key === "/" && field()) field().focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }, true);

  document.addEventListener("click", (event) => {
    const hit = event.target.closest?.(".hit");
    if (hit) select(hit);
    if (event.target.closest?.(".cells")) {
      const audio = player(event.target.closest(".hit, .asked"));
      if (audio) audio.paused ? play(audio) : audio.pause();
    }
  });

  // One recording sounds at a time, and the one that does is the selected one.
  document.addEventListener("play", (event) => {
    if (event.target.paused) return; // the event comes late, and another recording has begun meanwhile
    silence(event.target);
    const hit = event.target.closest(".hit");
    if (hit) select(hit);
    const line = event.target.closest(".hit, .asked")?.querySelector(".now");
    const move = () => {
      if (!line) return;
      line.style.left = `${(100 * event.target.currentTime) / (event.target.duration || Infinity)}%`;
      if (!event.target.paused) requestAnimationFrame(move);
    };
    move();
  }, true);

  // A new answer comes into view. After Enter in the field, until another key or a click, the keys belong to it.
  let asked = false;
  let known = null;
  document.addEventListener("keydown", (event) => {
    asked = event.key === "Enter" && event.target === field();
  });
  document.addEventListener("pointerdown", () => (asked = false));
  // Gradio changes the old answer into the new one, element by element: what it says tells them apart.
  new MutationObserver(() => {
    const answer = document.querySelector("#results .say, #results .problem");
    if (!answer || answer.textContent === known) return;
    const isWelcome = known === null;
    known = answer.textContent;
    if (isWelcome) return;
    selected()?.removeAttribute("aria-current");
    document.querySelectorAll("#results .now").forEach((line) => (line.style.left = ""));
    const first = hits()[0];
    if (asked && first) {
      select(first);
      first.focus({ preventScroll: true });
    }
    if (answer.getBoundingClientRect().top > window.innerHeight / 2) bring(answer, "start");
  }).observe(document.documentElement, { childList: true, subtree: true, characterData: true });
})();
