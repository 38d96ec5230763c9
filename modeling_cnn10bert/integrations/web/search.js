// The model and the index, in a worker, so that the page answers while they compute.
//
// Asked by { id, text } or { id, samples, rate }, it answers { id, hits, cut } or { id, problem }. Unasked, it sends
// { progress }, { ready } or { fatal }.

import * as ort from "./runtime/ort.mjs";
import { Tokenizer } from "./runtime/tokenizers.mjs";
import { LogMel } from "./log_mel.js";
import { resample } from "./resample.js";

const BEST = 10; // recordings in an answer
const MAX_TEXT = 4000; // characters that are tokenized; the model reads far less

class Problem extends Error {} // its message is for the user

let loaded = 0; // bytes

// Load a file of this folder. `total` is what all files that are loaded now come to.
async function load(path, total = Infinity, unzip = false) {
  const response = await fetch(new URL(path, import.meta.url)).catch(() => null);
  if (!response?.ok) {
    const reason = response ? `the server answered ${response.status}` : "the server does not answer";
    throw new Problem(`${path} cannot be loaded: ${reason}. Reload the page.`);
  }
  const count = new TransformStream({
    transform(chunk, controller) {
      loaded += chunk.length;
      if (total < Infinity) postMessage({ progress: Math.min(1, loaded / total) });
      controller.enqueue(chunk);
    },
  });
  const stream = response.body.pipeThrough(count);
  return new Response(unzip ? stream.pipeThrough(new DecompressionStream("gzip")) : stream);
}

async function open() {
  const index = await (await load("search.json")).json();
  const total = index.bytes_at_start;
  const [wasm, model, embeddings, vocabulary, settings] = await Promise.all([
    load("runtime/ort.wasm.gzip", total, true).then((file) => file.arrayBuffer()),
    load("model/text_model.onnx", total).then((file) => file.arrayBuffer()),
    load("embeddings.bin", total).then((file) => file.arrayBuffer()),
    load("model/tokenizer.json", total).then((file) => file.json()),
    load("model/tokenizer_config.json", total).then((file) => file.json()),
  ]);
  ort.env.wasm.wasmBinary = wasm;
  ort.env.wasm.numThreads = 1; // more need headers that a static server does not send
  return {
    index,
    embeddings: new Float32Array(embeddings), // [windows of all recordings, dimension]
    tokenizer: new Tokenizer(vocabulary, settings),
    logMel: new LogMel(index.features),
    // Without this option, every text would convert the 8-bit weights to float32 again.
    text: await ort.InferenceSession.create(model, { extra: { session: { disable_quant_qdq: "1" } } }),
    audio: null, // loaded for the first recording
  };
}

async function embed(session, inputs) {
  const output = await session.run(inputs);
  return output[session.outputNames[0]].data;
}

function integers(values) {
  return new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);
}

async function embedText(search, text) {
  let { ids } = search.tokenizer.encode(text.slice(0, MAX_TEXT));
  if (!/[\p{L}\p{N}]/u.test(text) || ids.length < 3) { // two frame every text
    throw new Problem("There is no word in this text. Describe the sound, for example: a dog barks.");
  }
  const cut = ids.length > search.index.max_tokens;
  if (cut) ids = [...ids.slice(0, search.index.max_tokens - 1), ids.at(-1)];
  const inputs = { input_ids: integers(ids), attention_mask: integers(ids.map(() => 1)) };
  return { query: await embed(search.text, inputs), cut };
}

// The query for a recording is the normalized mean of its windows' embeddings.
async function embedSamples(search, recording, rate) {
  search.audio ??= await ort.InferenceSession.create(
    await (await load("model/audio_model.onnx")).arrayBuffer()
  );
  if (!recording.every(Number.isFinite)) throw new Problem("This recording holds samples that are no numbers.");
  const samples = resample(recording, rate, search.index.features.sampling_rate);
  const query = new Float32Array(search.index.dimension);
  const spans = windows(samples.length, search.index);
  for (const [number, [start, end]] of spans.entries()) {
    postMessage({ progress: number / spans.length });
    let waveform = samples.subarray(start, end);
    if (search.index.normalize_level) waveform = normalizeLevel(waveform);
    const { frames, values } = search.logMel.compute(waveform);
    const inputs = {
      input_features: new ort.Tensor("float32", values, [1, frames, search.logMel.bins]),
      input_features_mask: integers(new Array(frames).fill(1)),
    };
    const embedding = await embed(search.audio, inputs);
    query.forEach((value, n) => (query[n] = value + embedding[n]));
  }
  const length = Math.hypot(...query);
  return { query: query.map((value) => value / length), cut: false };
}

// Scale so that the peak is 1, with a gain of at most 60 dB, as retrieval/windows.py does.
function normalizeLevel(waveform) {
  const peak = waveform.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
  if (peak === 0) return waveform;
  const gain = Math.fround(Math.min(1 / peak, 1000));
  return waveform.map((sample) => sample * gain);
}

// Windows in samples, as the index has them: of one length, the last one ends with the recording.
function windows(count, { window, overlap, features: { sampling_rate } }) {
  const length = Math.round(window * sampling_rate);
  const step = length - Math.round(overlap * sampling_rate);
  const spans = [];
  let start = 0;
  for (; start + length < count; start += step) spans.push([start, start + length]);
  spans.push([Math.max(0, count - length), count]);
  return spans;
}

// The recordings whose best window has the largest inner product with the query.
function rank({ index, embeddings }, query) {
  let row = 0;
  const hits = index.recordings.map((recording) => {
    const best = { ...recording, score: -Infinity };
    for (const [start, end] of recording.windows) {
      let score = 0;
      for (let n = 0; n < query.length; n++) score += query[n] * embeddings[row * query.length + n];
      if (score > best.score) Object.assign(best, { score, start, end });
      row++;
    }
    return best;
  });
  return hits.sort((one, other) => other.score - one.score).slice(0, BEST);
}

async function answer(search, { id, text, samples, rate }) {
  try {
    const { query, cut } = await (samples ? embedSamples(search, samples, rate) : embedText(search, text));
    postMessage({ id, hits: rank(search, query), cut });
  } catch (error) {
    const problem = error instanceof Problem ? error.message : `This cannot be searched for: ${error.message}`;
    postMessage({ id, problem });
  }
}

let work = open(); // questions wait for it, and for each other
work.then(
  ({ index }) => postMessage({ ready: { recordings: index.recordings.length, rate: index.features.sampling_rate } }),
  (error) => postMessage({ fatal: error instanceof Problem ? error.message : `The model cannot run: ${error.message}` })
);
onmessage = ({ data }) => {
  work = work.then(async (search) => {
    await answer(search, data);
    return search;
  });
};
