// The page: it asks the worker `search.js`, and shows the answers.

import { decode } from "./recording.js";

const [form, text, file, status, progress, problem, list] = [
  "form", "text", "file", "status", "progress", "problem", "hits",
].map((id) => document.getElementById(id));
const worker = new Worker(new URL("search.js", import.meta.url), { type: "module" });
let asked = 0; // number of the last question; only its answer is shown
let found = ""; // what the recordings of the next answer have in common
let modelRate; // in Hz; known when the model is ready
let start; // of the page, when it is ready
const ready = new Promise((resolve) => (start = resolve));

function say(line, working = false) {
  problem.hidden = true;
  status.textContent = line;
  progress.hidden = !working;
  progress.removeAttribute("value"); // of unknown length
}

function warn(line) {
  say("");
  list.replaceChildren();
  problem.textContent = line;
  problem.hidden = false;
}

// The search cannot start; a reload is all that helps.
function fail(line) {
  warn(line);
  form.inert = true;
}

// ------------------------------------------------------------------------------------------------------- questions

function begin(line, answer) {
  list.replaceChildren();
  found = answer;
  say(line, true);
  return ++asked;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const question = text.value.trim();
  worker.postMessage({ id: begin("Searching …", `for “${question}”`), text: question });
});

file.addEventListener("change", () => {
  if (file.files.length) listen(file.files[0]);
  file.value = ""; // so that the same file can be chosen again
});

addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files.length) listen(event.dataTransfer.files[0]);
});

async function listen(recording) {
  if (form.inert) return;
  const id = begin(`Listening to ${recording.name} …`, `that sound like “${recording.name}”`);
  try {
    await ready;
    const { samples, rate } = await decode(recording, modelRate);
    if (id === asked) worker.postMessage({ id, samples, rate }, [samples.buffer]);
  } catch (error) {
    if (id === asked) warn(error.message);
  }
}

// --------------------------------------------------------------------------------------------------------- answers

worker.onmessage = ({ data }) => {
  if (data.fatal) {
    fail(data.fatal);
  } else if (data.ready) {
    modelRate = data.ready.rate;
    start();
    const count = data.ready.recordings;
    if (!asked) say(`${count.toLocaleString("en")} recordings are ready. Describe a sound, or drop in a recording.`);
  } else if (data.progress !== undefined) {
    progress.value = data.progress;
  } else if (data.id === asked) {
    if (data.problem) warn(data.problem);
    else show(data);
  }
};
worker.onerror = () =>
  fail("The search cannot start: a file of this page is missing, or the browser is too old. Reload the page.");
say("Loading the model …", true);

function show({ hits, cut }) {
  const note = cut ? " Only the beginning of this text counts: the model reads no more." : "";
  say(`The ${hits.length} best recordings ${found}.${note}`);
  list.replaceChildren(...hits.map(row));
}

function row(hit, number) {
  const whole = hit.start === 0 && hit.end >= hit.duration;
  const part = whole ? "all of it" : `of ${clock(hit.duration)}`;
  const item = document.createElement("li");
  const head = element("p", "head");
  head.append(
    element("span", "rank", number + 1),
    element("span", "name", hit.name),
    element("span", "score", hit.score.toFixed(3))
  );
  item.append(head, element("p", "place", `${clock(hit.start)} – ${clock(hit.end)}, ${part}`));
  if (hit.sound) item.append(player(hit));
  return item;
}

function element(tag, kind, content = "") {
  const made = document.createElement(tag);
  made.className = kind;
  made.textContent = content;
  return made;
}

function player(hit) {
  const audio = document.createElement("audio");
  audio.controls = true;
  audio.preload = "none";
  audio.setAttribute("aria-label", `Play ${hit.name}`);
  audio.src = `${hit.sound.split("/").map(encodeURIComponent).join("/")}#t=${hit.start}`; // from its best window on
  audio.addEventListener("error", () =>
    audio.replaceWith(element("p", "problem", "This browser cannot play the recording."))
  );
  return audio;
}

// Only one recording plays at a time.
list.addEventListener(
  "play",
  ({ target }) => list.querySelectorAll("audio").forEach((audio) => audio !== target && audio.pause()),
  true
);

function clock(seconds) {
  const tenths = Math.round(10 * seconds);
  const rest = ((tenths % 600) / 10).toFixed(1).padStart(4, "0");
  return `${Math.floor(tenths / 600)}:${rest}`;
}
