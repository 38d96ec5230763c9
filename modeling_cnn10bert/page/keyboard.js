// Arrow keys walk through the results and play them, space pauses, "/" leads to the search field.
// Gradio runs this once, with `element`, which holds the results, and `watch`, which reports a new answer.
const hits = () => [...element.querySelectorAll(".hit")];
const selected = () => element.querySelector(".hit[aria-current]");
const players = () => [...element.querySelectorAll("audio")];
const field = () => document.querySelector("#text textarea, #text input");
const steps = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };
const favorites = new Set(); // keys of results, until the page is closed
let shown = 0; // number of results before more were asked for
let asked = false; // by Enter in the search field; then the keys belong to the answer

function bring(target, block) {
  const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  target.scrollIntoView({ block, behavior: still ? "auto" : "smooth" });
}

// Show which results are favorites, and link to their playlist.
function mark() {
  element.querySelectorAll("[data-favorite]").forEach((button) => {
    const chosen = favorites.has(button.dataset.favorite);
    button.setAttribute("aria-pressed", chosen);
    button.textContent = chosen ? "★ Favorite" : "☆ Favorite";
  });
  const link = document.querySelector("#playlist");
  link.hidden = !favorites.size;
  link.textContent = `Playlist of the favorites (${favorites.size})`;
  link.href = `playlist.m3u?${new URLSearchParams([...favorites].map((key) => ["key", key]))}`;
}

function toggle(audio) {
  if (audio.paused) audio.play().catch(() => {}); // interrupted by the next key, or the file is gone
  else audio.pause();
}

function select(hit) {
  hits().forEach((other) => (other.tabIndex = -1));
  selected()?.removeAttribute("aria-current");
  hit.setAttribute("aria-current", "true");
  hit.tabIndex = 0;
}

function walk(step) {
  const all = hits();
  const next = all[Math.min(Math.max(all.indexOf(selected()) + step, 0), all.length - 1)];
  select(next);
  next.focus({ preventScroll: true });
  bring(next, "nearest");
  players().forEach((audio) => audio.pause());
  const audio = next.querySelector("audio");
  if (!audio) return; // the file is gone
  audio.currentTime = 0;
  toggle(audio);
}

// In the capture phase, because in a focused player the arrows would seek and change the volume.
document.addEventListener("keydown", (event) => {
  const target = event.target;
  asked = event.key === "Enter" && target === field();
  const writes = target.isContentEditable || target.matches("textarea, select, input:not([type=checkbox], [type=radio])");
  if (event.ctrlKey || event.altKey || event.metaKey || writes) return;
  const current = selected()?.querySelector("audio") ?? players().find((audio) => !audio.paused);
  if (event.key in steps && hits().length) walk(steps[event.key]);
  else if (event.key === " " && current && !target.closest("button, a, label, summary, input")) toggle(current);
  else if (event.key === "/" && field()) field().select();
  else return;
  event.preventDefault();
  event.stopPropagation();
}, true);

document.addEventListener("pointerdown", () => (asked = false));

element.addEventListener("click", (event) => {
  const hit = event.target.closest(".hit");
  if (hit) select(hit);
  const { similar, favorite, more } = event.target.closest("button")?.dataset ?? {};
  if (more !== undefined) {
    shown = hits().length;
    trigger("click", { more: true });
  } else if (similar) trigger("click", { similar });
  else if (favorite) {
    if (!favorites.delete(favorite)) favorites.add(favorite);
    mark();
  }
  const cells = event.target.closest(".cells");
  if (!cells) return;
  const audio = cells.closest(".hit, .asked").querySelector("audio");
  const { left, width } = cells.getBoundingClientRect();
  audio.currentTime = ((event.clientX - left) / width) * cells.closest(".mel").dataset.seconds;
  audio.play().catch(() => {}); // as in `toggle`
});

// Only one recording plays at a time, and it is the selected one.
element.addEventListener("play", ({ target }) => {
  if (target.paused) return; // the event comes late, and another recording has started meanwhile
  players().forEach((other) => other !== target && other.pause());
  const box = target.closest(".hit, .asked");
  if (box.matches(".hit")) select(box);
  const line = box.querySelector(".now");
  const move = () => {
    line.style.left = `${(100 * target.currentTime) / (target.duration || Infinity)}%`;
    if (!target.paused) requestAnimationFrame(move);
  };
  move();
}, true);

// A file above the limit is refused before it is sent, in the page: Gradio's own message goes away.
for (const kind of ["change", "drop"]) {
  document.addEventListener(kind, (event) => {
    if (!props.max_bytes || !event.target.closest?.("#recording")) return;
    const file = (event.dataTransfer ?? event.target).files?.[0];
    if (!file || file.size <= props.max_bytes) return;
    event.preventDefault();
    event.stopPropagation();
    const line = document.createElement("p");
    line.className = "problem";
    line.setAttribute("role", "alert");
    line.textContent = `${file.name} has ${file.size >> 20} MB; the limit is ${props.max_bytes >> 20} MB.`;
    props.value = line.outerHTML.replace(/[{}$`]/g, (character) => `&#${character.charCodeAt()};`);
    if (kind === "change") event.target.value = ""; // so that the same file can be chosen again
  }, true);
}

// Scroll a new answer into view; Gradio changes the old one into it, element by element.
watch("value", () => {
  selected()?.removeAttribute("aria-current");
  element.querySelectorAll(".now").forEach((line) => (line.style.left = ""));
  mark();
  const last = hits()[shown - 1]; // of the results before "more"
  shown = 0;
  if (last) {
    select(last);
    last.focus({ preventScroll: true });
  } else if (asked && hits().length) element.querySelector(".hits").focus({ preventScroll: true });
  const answer = element.querySelector(".say, .problem");
  // The question is part of the page's address; Gradio's own parameters are kept.
  const query = new URLSearchParams(answer.dataset.query);
  for (const [name, value] of new URLSearchParams(location.search)) if (name.startsWith("__")) query.set(name, value);
  history.replaceState(history.state, "", query.size ? `?${query}` : location.pathname);
  if (answer.getBoundingClientRect().top > window.innerHeight / 2) bring(answer, "start");
});
