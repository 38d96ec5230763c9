"""
Compare two recordings by their audio fingerprints.

A fingerprint has a word of 32 bits every 10 ms. A bit tells whether the difference of energy between two neighboring
bands grows or falls in time (Haitsma and Kalker, "A Highly Robust Audio Fingerprinting System", ISMIR 2002). Level,
sampling rate and format change few bits, while half of the bits of two different recordings differ, also where both
are rain.
"""

import dataclasses

import numpy as np

SAMPLING_RATE = 8000  # Hz
FRAME = 1024  # samples
HOP = 80  # samples
LAG = 4  # hops between the two frames whose energies are compared
LOWEST, HIGHEST, BANDS = 200, 3800, 33  # Hz, and one more band than there are bits
FLOOR_DB = 60  # frames so far below the loudest one are silent
SILENCE_DB = -80  # and those below this level, where a sine of full scale has about 0
SHORTEST = 12  # words that two fingerprints must share
LEAST_SHARE = 0.8  # of the words of the one with fewer
SHIFTS = 8  # positions that are tried


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """
    The fingerprint of a recording.

    Attributes:
        words: [T] uint32, one every `HOP` samples; 0 where the recording is silent.
        sounding: [T] bool, whether it is not silent.
    """

    words: np.ndarray
    sounding: np.ndarray


def fingerprint(waveform: np.ndarray) -> Fingerprint:
    """Compute the fingerprint of a waveform [samples] float32 at `SAMPLING_RATE`; silence has no sounding words."""
    shortest = FRAME + LAG * HOP
    if waveform.size < shortest:
        waveform = np.pad(waveform, (0, shortest - waveform.size))
    frames = np.lib.stride_tricks.sliding_window_view(waveform, FRAME)[::HOP]
    # Blocks, because the spectra of an hour take gigabytes.
    energy = np.concatenate([_band_energies(frames[start : start + 4096]) for start in range(0, len(frames), 4096)])
    level = energy.max(axis=1)
    sounding = level > max(level.max() * 10 ** (-FLOOR_DB / 10), 10 ** (SILENCE_DB / 10))
    sounding = sounding[LAG:] & sounding[:-LAG]
    # In decibels, so that a gain or an equalizer cancels out.
    slope = np.diff(10 * np.log10(energy + 1e-12), axis=1)
    bits = np.packbits(slope[LAG:] > slope[:-LAG], axis=1)
    words = np.ascontiguousarray(bits).view(np.uint32)[:, 0]
    return Fingerprint(np.where(sounding, words, np.uint32(0)), sounding)


def align(one: Fingerprint, other: Fingerprint, max_shift: float) -> tuple[float, float]:
    """
    Find the position at which two fingerprints agree best.

    Positions are proposed by equal words. Only words of the overlap count that sound in both recordings.

    Args:
        one, other: of two recordings.
        max_shift: maximum shift in seconds.

    Returns:
        The similarity, which is 1 minus twice the share of different bits: 1 for equal ones, around 0 for different
        recordings, and -1 if too little sounds in both. The shift is where `other` begins in `one`, in seconds,
        negative if it begins before.
    """
    needed = max(SHORTEST, LEAST_SHARE * min(one.sounding.sum(), other.sounding.sum()))
    best = (-1.0, 0.0)
    for shift in _likely_shifts(one, other, round(max_shift * SAMPLING_RATE / HOP)):
        first, second = max(0, shift), max(0, -shift)
        count = min(one.words.size - first, other.words.size - second)
        if count < needed:
            continue
        both = one.sounding[first : first + count] & other.sounding[second : second + count]
        if (shared := both.sum()) < needed:
            continue
        different = np.bitwise_count(one.words[first : first + count] ^ other.words[second : second + count])
        similarity = 1 - 2 * float(different[both].sum()) / (32 * int(shared))
        best = max(best, (similarity, shift * HOP / SAMPLING_RATE))
    return best


def _likely_shifts(one: Fingerprint, other: Fingerprint, most: int) -> list[int]:
    """Return the shifts at which the most words are equal."""
    positions, places = np.flatnonzero(one.sounding), np.flatnonzero(other.sounding)
    order = np.argsort(one.words[positions], kind="stable")
    positions = positions[order]
    words = one.words[positions]
    # Of words that repeat, the first position is enough.
    found = np.searchsorted(words, other.words[places])
    is_equal = found < words.size
    is_equal[is_equal] = words[found[is_equal]] == other.words[places[is_equal]]
    shifts = positions[found[is_equal]] - places[is_equal]
    shifts, votes = np.unique(shifts[np.abs(shifts) <= most], return_counts=True)
    return shifts[np.argsort(-votes, kind="stable")[:SHIFTS]].tolist()


def _band_energies(frames: np.ndarray) -> np.ndarray:
    """Return the energies [T, BANDS] of frames [T, FRAME]; a sine of full scale has about 1 in its band."""
    window = np.hanning(FRAME).astype(np.float32)
    spectra = np.fft.rfft(frames * window, axis=1)
    edges = np.searchsorted(np.fft.rfftfreq(FRAME, 1 / SAMPLING_RATE), np.geomspace(LOWEST, HIGHEST, BANDS + 1))
    return np.add.reduceat(np.abs(spectra) ** 2, edges, axis=1)[:, :BANDS].astype(np.float32) * (2 / window.sum()) ** 2
