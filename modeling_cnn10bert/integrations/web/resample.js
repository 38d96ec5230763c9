// Change the sampling rate of a recording.

const CROSSINGS = 64; // of zero on each side of the filter
const BETA = 10; // of the Kaiser window: what is filtered out is dampened by 100 dB
const CUTOFF = 0.95; // of the lower half rate: flat up to 0.9 of it, nothing above it

// Samples at the rate `from` -> samples at the rate `to`, both whole numbers of Hz, by a windowed sinc.
export function resample(samples, from, to) {
  if (from === to) return samples;
  const divisor = greatestDivisor(from, to);
  const [step, phases] = [from / divisor, to / divisor]; // sample n of the output is at n * step / phases of the input
  const scale = CUTOFF * Math.min(1, to / from);
  const half = Math.ceil(CROSSINGS / scale);
  // For each fraction of a sample between input and output, the weights of the input around it.
  const weights = Array.from({ length: phases }, (_, phase) =>
    Float64Array.from({ length: 2 * half }, (_, k) => {
      const distance = k - half + 1 - phase / phases;
      const x = Math.PI * scale * distance;
      const inside = 1 - (distance / half) ** 2;
      return inside < 0 ? 0 : scale * (x ? Math.sin(x) / x : 1) * (bessel(BETA * Math.sqrt(inside)) / bessel(BETA));
    })
  );
  const output = new Float32Array(Math.round((samples.length * to) / from));
  for (let n = 0; n < output.length; n++) {
    const first = Math.floor((n * step) / phases) - half + 1;
    const weight = weights[(n * step) % phases];
    const [begin, end] = [Math.max(0, -first), Math.min(2 * half, samples.length - first)];
    let sum = 0;
    for (let k = begin; k < end; k++) sum += weight[k] * samples[first + k];
    output[n] = sum;
  }
  return output;
}

function greatestDivisor(a, b) {
  return b ? greatestDivisor(b, a % b) : a;
}

// The modified Bessel function of the first kind and order 0.
function bessel(x) {
  let [sum, term] = [1, 1];
  for (let k = 1; term > 1e-12 * sum; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}
