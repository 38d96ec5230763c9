// Decode a file that the user gives, to one channel.

const MAX_SECONDS = 300;
const MAX_BYTES = 50 * 2 ** 20;
const KEPT_ENERGY = 0.1; // of channels that have nothing in common; with less, channels cancel each other

// File -> { samples: mono float32, rate: in Hz, of the file where it is known and else `rate` }. An error's message is
// for the user.
export async function decode(file, rate) {
  const limit = (what) => new Error(`${file.name} is ${what}, which is the limit. Choose a shorter recording.`);
  if (!file.size) throw new Error(`${file.name} is empty: 0 bytes. Choose another file.`);
  if (file.size > MAX_BYTES) throw limit(`larger than ${MAX_BYTES >> 20} MB`);
  let sound;
  try {
    const bytes = await file.arrayBuffer();
    // At its own rate, as the resampling of browsers dampens what is above 12 kHz.
    sound = await new OfflineAudioContext(1, 1, ownRate(new DataView(bytes)) ?? rate).decodeAudioData(bytes);
  } catch {
    throw new Error(
      `${file.name} cannot be used: this browser does not decode it. Choose a wav, flac, mp3 or ogg file.`
    );
  }
  if (sound.duration > MAX_SECONDS) throw limit(`longer than ${MAX_SECONDS / 60} minutes`);
  const channels = Array.from({ length: sound.numberOfChannels }, (_, n) => sound.getChannelData(n));
  return { samples: mix(channels), rate: sound.sampleRate };
}

// The sampling rate in the header of a wav, flac, ogg or mp3 file, `null` in others; browsers do not tell it.
export function ownRate(bytes) {
  const head = String.fromCharCode(...new Uint8Array(bytes.buffer, 0, Math.min(4096, bytes.byteLength)));
  try {
    if (head.startsWith("RIFF")) return bytes.getUint32(head.indexOf("fmt ") + 12, true);
    if (head.startsWith("fLaC")) return bytes.getUint32(18) >>> 12;
    if (head.startsWith("OggS") && head.includes("OpusHead")) return 48_000;
    if (head.startsWith("OggS") && head.includes("\x01vorbis")) return bytes.getUint32(head.indexOf("\x01vorbis") + 12, true);
    // An ID3 tag has 7 bits of its length in each of four bytes.
    const tag = [6, 7, 8, 9].reduce((size, place) => 128 * size + bytes.getUint8(place), 10);
    const frame = bytes.getUint32(head.startsWith("ID3") ? tag : 0);
    if (frame >>> 21 === 0x7ff) {
      const halvings = [2, null, 1, 0][(frame >>> 19) & 3]; // MPEG 2.5, none, MPEG 2, MPEG 1
      return [44_100, 48_000, 32_000][(frame >>> 10) & 3] / 2 ** halvings || null;
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // the header is cut off
  }
  return null;
}

// Average the channels, or take the loudest one if they cancel each other.
function mix(channels) {
  if (channels.length === 1) return channels[0].slice();
  const mono = channels[0].map((_, n) => channels.reduce((sum, channel) => sum + channel[n], 0) / channels.length);
  const energies = channels.map(variance);
  const expected = energies.reduce((sum, energy) => sum + energy) / channels.length ** 2;
  if (variance(mono) >= KEPT_ENERGY * expected) return mono;
  return channels[energies.indexOf(Math.max(...energies))].slice();
}

function variance(samples) {
  const mean = samples.reduce((sum, value) => sum + value, 0) / samples.length;
  return samples.reduce((sum, value) => sum + (value - mean) ** 2, 0) / samples.length;
}
