// Log-mel spectrograms in dB, as `CNN10FeatureExtractor` computes them in Python.

const FLOOR = 1e-10; // of the mel power

export class LogMel {
  // `parameters` are those of the feature extractor, by the same names.
  constructor(parameters) {
    this.bins = parameters.feature_size;
    this.fftSize = parameters.n_fft;
    this.hop = parameters.hop_length;
    // The shortest clip has `min_frames` frames, and more than half a window, which reflect padding needs.
    this.minSamples = Math.max((parameters.min_frames - 1) * this.hop, this.fftSize / 2 + 1);
    const angles = Float64Array.from({ length: this.fftSize }, (_, n) => (2 * Math.PI * n) / this.fftSize);
    this.window = Float32Array.from(angles, (angle) => 0.5 - 0.5 * Math.cos(angle)); // Hann
    this.cosines = angles.map(Math.cos);
    this.sines = angles.map(Math.sin);
    this.filters = melFilters(parameters);
  }

  // Mono samples at the extractor's rate -> { frames: T, values: [T * bins] float32 }, frame by frame.
  compute(samples) {
    const length = Math.max(samples.length, this.minSamples); // zeros follow a shorter clip, and count as part of it
    const frames = 1 + Math.floor(length / this.hop);
    const values = new Float32Array(frames * this.bins);
    const real = new Float64Array(this.fftSize);
    const imaginary = new Float64Array(this.fftSize);
    for (let frame = 0; frame < frames; frame++) {
      // The frame is centered on its hop; the clip is mirrored at both ends.
      const start = frame * this.hop - this.fftSize / 2;
      for (let n = 0; n < this.fftSize; n++) {
        const place = Math.abs(start + n);
        const sample = samples[place < length ? place : 2 * (length - 1) - place] ?? 0;
        real[n] = Math.fround(sample * this.window[n]);
      }
      imaginary.fill(0);
      this.transform(real, imaginary);
      for (let bin = 0; bin < this.bins; bin++) {
        const { first, weights } = this.filters[bin];
        let power = 0;
        for (let k = 0; k < weights.length; k++) {
          power += weights[k] * (real[first + k] ** 2 + imaginary[first + k] ** 2);
        }
        values[frame * this.bins + bin] = 10 * Math.log10(Math.max(power, FLOOR));
      }
    }
    return { frames, values };
  }

  // Fourier transform in place: radix 2, decimation in time.
  transform(real, imaginary) {
    const size = this.fftSize;
    for (let n = 1, reversed = 0; n < size; n++) {
      let bit = size >> 1;
      for (; reversed & bit; bit >>= 1) reversed ^= bit;
      reversed ^= bit;
      if (n < reversed) [real[n], real[reversed]] = [real[reversed], real[n]]; // the imaginary part is zero
    }
    for (let half = 1; half < size; half *= 2) {
      const step = size / (2 * half);
      for (let start = 0; start < size; start += 2 * half) {
        for (let k = 0; k < half; k++) {
          const [a, b] = [start + k, start + k + half];
          const [cosine, sine] = [this.cosines[k * step], this.sines[k * step]];
          const turnedReal = real[b] * cosine + imaginary[b] * sine;
          const turnedImaginary = imaginary[b] * cosine - real[b] * sine;
          real[b] = real[a] - turnedReal;
          imaginary[b] = imaginary[a] - turnedImaginary;
          real[a] += turnedReal;
          imaginary[a] += turnedImaginary;
        }
      }
    }
  }
}

// Triangular mel filters, Slaney scale and norm: for each the first bin of the transform, and weights from there on.
function melFilters({ feature_size, n_fft, sampling_rate, f_min, f_max }) {
  const [lowest, highest] = [toMel(f_min), toMel(f_max)];
  const edges = Array.from({ length: feature_size + 2 }, (_, n) =>
    toHertz(lowest + (n * (highest - lowest)) / (feature_size + 1))
  );
  return edges.slice(0, feature_size).map((low, n) => {
    const [center, high] = [edges[n + 1], edges[n + 2]];
    const weights = Array.from({ length: n_fft / 2 + 1 }, (_, k) => {
      const frequency = (k * sampling_rate) / n_fft;
      const slope = Math.min((frequency - low) / (center - low), (high - frequency) / (high - center));
      return (Math.max(0, slope) * 2) / (high - low);
    });
    const first = Math.max(0, weights.findIndex((weight) => weight > 0));
    const last = weights.findLastIndex((weight) => weight > 0);
    return { first, weights: Float32Array.from(weights.slice(first, last + 1)) };
  });
}

// Slaney's mel scale is linear below 1 kHz (15 mel), and logarithmic above.
function toMel(hertz) {
  return hertz < 1000 ? (3 * hertz) / 200 : 15 + (27 / Math.log(6.4)) * Math.log(hertz / 1000);
}

function toHertz(mel) {
  return mel < 15 ? (200 * mel) / 3 : 1000 * Math.exp((Math.log(6.4) / 27) * (mel - 15));
}
