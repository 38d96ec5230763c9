"""Generate a soundscape benchmark: synthesizers of everyday sounds, and scenes with captions made of them.

    python scripts/demo/synthesizers.py OUT --num_train 3000 --num_validation 200 --num_test 200

writes `OUT/sources/<kind>/<n>.flac` and `OUT/{train,validation,test}.jsonl` (see soundscapes.py) without any download.
Splits share no recording. Validation and test hold every content at most once, so that a query has one right answer.
They draw half of their phrases from a reserve that training never shows.

Each synthesizer is a sketch of the physics of its sound (a struck bell's inharmonic partials, a rotor's chopped
noise), with all parameters drawn for each recording.
"""

import argparse
import itertools
import json
import os
import pathlib
import random
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.signal
import soundfile
from tqdm.auto import tqdm

from modeling_cnn10bert.data.recipes.soundscapes import SPLITS
from modeling_cnn10bert.files import UNFINISHED, scratch_folder

SAMPLING_RATE = 32_000  # Hz, of the recordings written
CLIP_SECONDS = 5.0
SCENE_SECONDS = 8.0
CAPTIONS_PER_SCENE = 5
VERSION = 1  # raise it when the same parameters would give other files


# ------------------------------------------------------------------------------------------------- building blocks
# In this section and the next, `rng` is a numpy Generator, `rate` a sampling rate in Hz; sounds are float arrays
# [samples].


def _silence(rate: int) -> np.ndarray:
    return np.zeros(round(CLIP_SECONDS * rate))


def _time(seconds: float, rate: int) -> np.ndarray:
    """Return the times [samples] in seconds, starting at 0."""
    return np.arange(round(seconds * rate)) / rate


def _add(clip: np.ndarray, sound: np.ndarray, at: float, rate: int) -> None:
    """Add a sound to the clip in place, starting at `at` seconds; it is cut at the end of the clip."""
    first = round(at * rate)
    sound = sound[: max(len(clip) - first, 0)]
    clip[first : first + len(sound)] += sound


def _band(sound: np.ndarray, rate: int, low: float | None, high: float | None, order: int = 2) -> np.ndarray:
    """Keep the band from `low` to `high` Hz; None, or a `high` beyond the rate, leaves that side open."""
    if high is not None and high < rate / 2:
        sound = scipy.signal.lfilter(*scipy.signal.butter(order, high, "lowpass", fs=rate), sound)
    if low is not None:
        sound = scipy.signal.lfilter(*scipy.signal.butter(order, low, "highpass", fs=rate), sound)
    return sound


def _noise(
    rng, samples: int, rate: int, low: float | None = None, high: float | None = None, order: int = 2
) -> np.ndarray:
    """Return Gaussian noise of standard deviation 1 in a band."""
    noise = _band(rng.standard_normal(samples, dtype=np.float32), rate, low, high, order)
    return noise / noise.std()


def _smooth(rng, samples: int, points_per_second: float, rate: int) -> np.ndarray:
    """Return a smooth random curve in [0, 1], made of cosines between `points_per_second` random points."""
    # Computing the cosine every 100 samples, with straight lines between, costs a fraction.
    coarse = np.arange(0, samples + 100, 100)
    positions = coarse * (points_per_second / rate)
    points = rng.random(int(positions[-1]) + 2)
    left = positions.astype(int)
    blend = 0.5 - 0.5 * np.cos(np.pi * (positions - left))
    return np.interp(np.arange(samples), coarse, points[left] * (1 - blend) + points[left + 1] * blend)


def _harmonics(frequency: np.ndarray, amplitudes: Sequence[float], rate: int) -> np.ndarray:
    """Sum harmonics 1, 2, ... of a gliding fundamental [samples] in Hz, up to the Nyquist frequency."""
    phase = 2 * np.pi * np.cumsum(frequency) / rate
    double_cosine = 2 * np.cos(phase)
    previous, current = np.zeros(len(phase)), np.sin(phase)
    sound = np.zeros(len(phase))
    for amplitude in amplitudes[: int(rate / 2 / frequency.max())]:
        sound += amplitude * current
        # sin((n + 1) p) = 2 cos(p) sin(n p) - sin((n - 1) p) is far cheaper than a sine per harmonic
        previous, current = current, double_cosine * current - previous
    return sound


def _fades(samples: int, rate: int, attack: float, release: float) -> np.ndarray:
    """Return an envelope that rises over `attack` and falls over `release` seconds by squared sines, with 1 between."""
    time = np.arange(samples) / rate
    rise = np.clip(time / attack, 0, 1)
    fall = np.clip((samples / rate - time) / release, 0, 1)
    return np.sin(np.pi / 2 * np.minimum(rise, fall)) ** 2


def _hits(rng, rate: int, per_second: float, strength: Callable[[int], np.ndarray]) -> np.ndarray:
    """Return a clip of impulses at random times (a Poisson process), with heights drawn by `strength(count)`."""
    clip = _silence(rate)
    count = rng.poisson(per_second * CLIP_SECONDS)
    np.add.at(clip, rng.integers(len(clip), size=count), strength(count) * rng.choice([-1, 1], size=count))
    return clip


def _ring(rng, rate: int, frequency: float, decay: float, seconds: float) -> np.ndarray:
    """Return a damped sine, the resonance after a blow; its amplitude falls by e every `decay` seconds."""
    radius, angle, phase = np.exp(-1 / (decay * rate)), 2 * np.pi * frequency / rate, rng.uniform(0, 2 * np.pi)
    blow = np.zeros(round(seconds * rate))
    blow[0] = 1.0
    # The two-pole filter whose response to a blow is radius^n sin(angle n + phase).
    zeros, poles = [np.sin(phase), radius * np.sin(angle - phase)], [1.0, -2 * radius * np.cos(angle), radius**2]
    return scipy.signal.lfilter(zeros, poles, blow)


def _finish(rng, clip: np.ndarray) -> np.ndarray:
    """Add a room tone 50 to 65 dB down, and set a level below full scale; return float32."""
    clip = (clip / (np.abs(clip).max() + 1e-12)).astype(np.float32)
    clip += 10 ** (rng.uniform(-65, -50) / 20) * rng.standard_normal(len(clip), dtype=np.float32)
    return clip * (rng.uniform(0.5, 0.95) / np.abs(clip).max())


# ---------------------------------------------------------------------------------------------------- synthesizers


def siren(rng: np.random.Generator, sampling_rate: int) -> np.ndarray:
    """A wailing, yelping or two-tone siren: one loud gliding tone with harmonics."""
    time = _time(CLIP_SECONDS, sampling_rate)
    low, high = rng.uniform(450, 650), rng.uniform(1000, 1500)
    style = rng.choice(["wail", "yelp", "two-tone"])
    rates = {"wail": rng.uniform(0.25, 0.6), "yelp": rng.uniform(2.0, 3.5), "two-tone": rng.uniform(0.6, 1.2)}
    cycle = np.sin(2 * np.pi * (rates[style] * time + rng.random()))
    glide = 0.5 + 0.5 * (np.tanh(12 * cycle) * 0.6 if style == "two-tone" else cycle)
    tone = _harmonics(low * (high / low) ** glide, np.arange(1, 9) ** -rng.uniform(0.8, 1.5), sampling_rate)
    loudness = 0.7 + 0.3 * _smooth(rng, len(time), 1, sampling_rate)
    return _finish(rng, tone * loudness)


def bell(rng: np.random.Generator, sampling_rate: int) -> np.ndarray:
    """A church bell: the inharmonic partials of a struck bell (hum, prime, tierce, quint, ...), each dying away."""
    ratios = np.array([0.5, 1.0, 1.2, 1.5, 2.0, 2.5, 2.67, 3.0, 4.0, 5.4, 6.8])
    prime = rng.uniform(280, 620)
    frequencies = prime * ratios * rng.uniform(0.99, 1.01, len(ratios))
    weights = rng.uniform(0.3, 1.0, len(ratios)) / ratios**0.5
    decays = rng.uniform(1.0, 2.0) / ratios**0.7
    strike = sum(
        weight * _ring(rng, sampling_rate, frequency, decay, CLIP_SECONDS)
        for frequency, weight, decay in zip(frequencies, weights, decays, strict=True)
    )
    clapper = _noise(rng, round(0.02 * sampling_rate), sampling_rate, 1500, 8000)
    strike[: len(clapper)] += 0.5 * clapper * _fades(len(clapper), sampling_rate, 0.001, 0.019)
    clip = _silence(sampling_rate)
    for at in np.arange(rng.uniform(0.05, 0.4), CLIP_SECONDS, rng.uniform(1.1, 2.4)):
        _add(clip, rng.uniform(0.7, 1.0) * strike, at, sampling_rate)
    return _finish(rng, clip)


def dog(rng: np.random.Generator, sampling_rate: int) -> np.ndarray:
    """Barks: short, rough, arched voice bursts through the resonances of a throat."""
    pitch, seconds = rng.uniform(260, 620), rng.uniform(0.13, 0.26)
    formants = [(rng.uniform(700, 1200), 1.0), (rng.uniform(1600, 2400), 0.5), (rng.uniform(3000, 4200), 0.2)]
    clip = _silence(sampling_rate)
    at = rng.uniform(0.05, 0.4)
    while at < CLIP_SECONDS - 0.2:
        time = _time(seconds * rng.uniform(0.85, 1.15), sampling_rate)
        arch = np.sin(np.pi * np.linspace(0.15, 1, len(time)))
        frequency = pitch * rng.uniform(0.95, 1.05) * (0.7 + 0.5 * arch)
        voice = _harmonics(frequency, np.arange(1, 25) ** -0.4, sampling_rate) + 1.5 * rng.standard_normal(len(time))
        bark = sum(weight * _band(voice, sampling_rate, 0.75 * f, 1.3 * f, 1) for f, weight in formants)
        _add(clip, rng.uniform(0.6, 1.0) * bark * _fades(len(time), sampling_rate, 0.015, 0.09), at, sampling_rate)
        # Barks come in quick groups, with pauses between.
        at += len(time) / sampling_rate + (rng.uniform(0.1, 0.25) if rng.random() < 0.6 else rng.uniform(0.5, 1.1))
    return _finish(rng, clip)


def rain(rng: np.random.Generator, sampling_rate: int) -> np.ndarray:
    """Steady hiss with a grain of drops on top."""
    samples = len(_silence(sampling_rate))
    hiss = _noise(rng, samples, sampling_rate, rng.uniform(400, 1200), rng.uniform(7000, 12000), order=1)
    drops = _hits(rng, sampling_rate, rng.uniform(150, 500), lambda count: rng.exponential(1.0, count))
    drops = _band(drops, sampling_rate, rng.uniform(1500, 2500), rng.uniform(5000, 9000), 1)
    drops *= rng.uniform(0.4, 1.2) / (drops.std() + 1e-12)
    swell = 0.85 + 0.15 * _smooth(rng, samples, 0.7, sampling_rate)
    return _finish(rng, (hiss + drops) * swell)


def waves(rng: np.random.Generator, sampling_rate: int) -> np.ndarray:
    """Surf: noise that swells, brightens as the wave breaks, and runs out."""
    time = _time(CLIP_SECONDS, sampling_rate)
    period, rise = rng.uniform(2.2, 3.8), rng.uniform(0.3, 0.5)
    position = (time / period + rng.random()) % 1.0  # 0: the wave arrives, `rise`: it breaks
    swell = np.where(position < rise, position / rise, (1 - position) / (1 - rise))
    swell = np.sin(np.pi / 2 * swell) ** 2
    water = _noise(rng, len(time), sampling_rate, 60, rng.uniform(500, 900), order=1)
    foam = _noise(rng, len(time), sampling_rate, rng.uniform(1200, 2000), rng.uniform(5000, 8000), order=1)
    return _finish(rng, water * (0.1 + swell) + rng.uniform(0.5, 0.9) * foam * swell**2)


def clock(rng: np.random.Generator, sampling_rate: int) -> np.ndarray:
    """A clock: dry, very regular clicks of a small metal escapement, tick and tock of different pitch."""
    interval = 1 / rng.choice([1.0, 2.0, 2.5, 3.0, 4.0, 5.0])
    modes = [[(rng.uniform(2000, 7000), rng.uniform(0.002, 0.008)) for _ in range(5)] for _ in ("tick", "tock")]
    level = (1.0, rng.uniform(0.5, 1.0))
    rebound = rng.uniform(0.008, 0.025)  # the escapement's second contact
    clip = _silence(sampling_rate)
    for beat, at in enumerate(np.arange(rng.uniform(0, interval), CLIP_SECONDS, interval)):
        click = sum(_ring(rng, sampling_rate, frequency, decay, 0.05) for frequency, decay in modes[beat % 2])
        _add(clip, level[beat % 2] * click, at, sampling_rate)
        _add(clip, 0.4 * level[beat % 2] * click, at + rebound, sampling_rate)
    return _finish(rng, clip)


def helicopter(rng: np.random.Generator, sampling_rate: int) -> np.ndarray:
    """A helicopter: low noise chopped by the blades 9 to 17 times a second, under it the slaps themselves."""
    time = _time(CLIP_SECONDS, sampling_rate)
    blades = rng.uniform(9, 17) * (1 + 0.03 * (_smooth(rng, len(time), 0.5, sampling_rate) - 0.5))
    phase = (np.cumsum(blades) / sampling_rate + rng.random()) % 1.0
    chop = np.exp(-phase * rng.uniform(4, 8))  # each blade's slap, dying before the next
    thump = _noise(rng, len(time), sampling_rate, 40, rng.uniform(120, 220)) * chop
    swish = _noise(rng, len(time), sampling_rate, 250, rng.uniform(1200, 2500), order=1) * (0.1 + chop)
    distance = np.exp(-rng.uniform(0, 1.4) * abs(time / CLIP_SECONDS - rng.random()))  # it flies by, up to 12 dB
    return _finish(rng, (thump + rng.uniform(0.3, 0.6) * swish) * distance)


def engine(rng: np.random.Generator, sampling_rate: int) -> np.ndarray:
    """A car engine that idles and revs: a dense comb of harmonics that rises and falls with the throttle."""
    samples = len(_silence(sampling_rate))
    throttle = _smooth(rng, samples, rng.uniform(0.6, 1.2), sampling_rate)
    idle, top = rng.uniform(38, 60), rng.uniform(110, 190)
    frequency = idle * (top / idle) ** throttle
    amplitudes = rng.uniform(0.2, 1.0, 24) * np.arange(1, 25) ** -rng.uniform(0.4, 0.8)
    comb = _harmonics(frequency, amplitudes, sampling_rate)
    resonance = rng.uniform(300, 700)
    exhaust = comb + 2 * _band(comb, sampling_rate, 0.7 * resonance, 1.4 * resonance, 1)
    breath = _noise(rng, samples, sampling_rate, None, 2500, order=1)
    return _finish(rng, (exhaust + 0.2 * breath) * (0.4 + 0.6 * throttle))


def bird(rng: np.random.Generator, sampling_rate: int) -> np.ndarray:
    """Bird song: a phrase of two to five fast, pure, gliding syllables, sung again and again."""
    phrase = [
        (
            rng.uniform(0.05, 0.18),
            rng.uniform(2800, 6500),
            rng.uniform(0.65, 1.5),
            rng.uniform(20, 45),
            rng.uniform(0, 0.06),
        )
        for _ in range(rng.integers(2, 6))
    ]
    pause = rng.uniform(0.3, 0.9)
    clip = _silence(sampling_rate)
    at = rng.uniform(0.05, 0.4)
    while at < CLIP_SECONDS - 0.1:
        for seconds, start, glide, trill, depth in phrase:
            time = _time(seconds, sampling_rate)
            frequency = start * glide ** (time / seconds) * (1 + depth * np.sin(2 * np.pi * trill * time))
            note = _harmonics(frequency.clip(2000, 9000), (1.0, 0.08), sampling_rate)
            _add(clip, rng.uniform(0.7, 1.0) * note * _fades(len(time), sampling_rate, 0.01, 0.03), at, sampling_rate)
            at += seconds + rng.uniform(0.02, 0.06)
        at += pause * rng.uniform(0.7, 1.3)
    return _finish(rng, clip)


def whistle(rng: np.random.Generator, sampling_rate: int) -> np.ndarray:
    """A train's whistle: long blasts of a steady chord with the hiss of steam."""
    root = rng.uniform(300, 480)
    chord = root * np.array([1.0, 1.19, 1.5, 1.78])[: rng.integers(3, 5)] * rng.uniform(0.99, 1.01)
    amplitudes = np.arange(1, 9) ** -rng.uniform(0.7, 1.2)
    clip = _silence(sampling_rate)
    at = rng.uniform(0.05, 0.3)
    while at < CLIP_SECONDS - 0.4:
        time = _time(rng.choice([rng.uniform(0.4, 0.7), rng.uniform(1.0, 1.9)]), sampling_rate)
        speaks = 1 - 0.06 * np.exp(-time / 0.06)  # the pitch creeps up as the pressure builds
        tone = sum(_harmonics(frequency * speaks, amplitudes, sampling_rate) for frequency in chord)
        steam = _noise(rng, len(time), sampling_rate, 1500, 9000, order=1)
        blast = (tone + rng.uniform(0.2, 0.5) * steam) * _fades(len(time), sampling_rate, 0.06, 0.15)
        _add(clip, blast, at, sampling_rate)
        at += len(time) / sampling_rate + rng.uniform(0.25, 0.6)
    return _finish(rng, clip)


def knock(rng: np.random.Generator, sampling_rate: int) -> np.ndarray:
    """Knuckles on a wooden door: groups of dull blows."""
    modes = [(f * rng.uniform(0.9, 1.1), d) for f, d in ((130, 0.045), (240, 0.035), (420, 0.025), (760, 0.012))]
    interval = rng.uniform(0.14, 0.28)
    clip = _silence(sampling_rate)
    at = rng.uniform(0.05, 0.5)
    while at < CLIP_SECONDS - 0.2:
        for _ in range(rng.integers(2, 6)):
            blow = sum(_ring(rng, sampling_rate, frequency, decay, 0.25) for frequency, decay in modes)
            contact = rng.standard_normal(round(0.006 * sampling_rate)) * np.linspace(
                1, 0, round(0.006 * sampling_rate)
            )
            blow[: len(contact)] += 0.8 * _band(contact, sampling_rate, None, 2500)
            _add(clip, rng.uniform(0.7, 1.0) * blow, at, sampling_rate)
            at += interval * rng.uniform(0.93, 1.07)
        at += rng.uniform(0.5, 1.2)
    return _finish(rng, clip)


def fire(rng: np.random.Generator, sampling_rate: int) -> np.ndarray:
    """A camp fire: irregular snaps of very different strength over a low flutter of flames."""
    samples = len(_silence(sampling_rate))
    snaps = _hits(rng, sampling_rate, rng.uniform(12, 35), lambda count: rng.pareto(1.6, count).clip(0, 12) + 0.2)
    body = _noise(rng, round(0.006 * sampling_rate), sampling_rate, 900, 10000, order=1)
    snaps = scipy.signal.fftconvolve(snaps, body * np.exp(-np.linspace(0, 6, len(body))))[:samples]
    flames = _noise(rng, samples, sampling_rate, 40, rng.uniform(250, 450), order=1)
    flames *= 0.4 + _smooth(rng, samples, 7, sampling_rate)
    hiss = _noise(rng, samples, sampling_rate, 2000, 9000, order=1)
    peak = np.abs(snaps).max() + 1e-12
    return _finish(rng, snaps / peak + rng.uniform(0.03, 0.08) * flames + rng.uniform(0.003, 0.01) * hiss)


def alarm(rng: np.random.Generator, sampling_rate: int) -> np.ndarray:
    """An electronic alarm: hard-edged beeps of one fixed pitch, even or in groups."""
    frequency = rng.uniform(1800, 3300)
    beep, gap = rng.uniform(0.07, 0.22), rng.uniform(0.06, 0.15)
    group, pause = rng.choice([(1, 0.0), (2, 0.35), (3, 0.5), (4, 0.6)])
    time = _time(beep, sampling_rate)
    odd = (1.0, 0.0, rng.uniform(0.15, 0.35), 0.0, rng.uniform(0.05, 0.2))  # a buzzer is driven by a square wave
    sound = _harmonics(np.full(len(time), frequency), odd, sampling_rate) * _fades(
        len(time), sampling_rate, 0.003, 0.003
    )
    clip = _silence(sampling_rate)
    at = rng.uniform(0.05, 0.3)
    while at < CLIP_SECONDS:
        for _ in range(int(group)):
            _add(clip, sound, at, sampling_rate)
            at += beep + gap
        at += pause
    return _finish(rng, clip)


def thunder(rng: np.random.Generator, sampling_rate: int) -> np.ndarray:
    """A clap of thunder: a torn crack, then a rolling rumble that takes seconds to die away."""
    clip = _silence(sampling_rate)
    at = rng.uniform(0.1, 0.7)
    time = _time(CLIP_SECONDS - at, sampling_rate)
    rumble = _noise(rng, len(time), sampling_rate, 25, rng.uniform(90, 180), order=1)
    rolls = 0.15 + _smooth(rng, len(time), rng.uniform(3, 6), sampling_rate) ** 2
    _add(
        clip,
        rumble * rolls * np.exp(-time / rng.uniform(1.2, 2.2)) * _fades(len(time), sampling_rate, 0.03, 0.1),
        at,
        sampling_rate,
    )
    for delay in np.cumsum(rng.exponential(0.06, rng.integers(3, 8))):
        tear = _noise(rng, round(0.5 * sampling_rate), sampling_rate, 100, rng.uniform(1500, 5000), order=1)
        tear *= np.exp(-_time(0.5, sampling_rate) / rng.uniform(0.04, 0.14)) * rng.uniform(0.3, 0.8)
        _add(clip, tear, at + delay, sampling_rate)
    return _finish(rng, clip)


class Synthesizer(NamedTuple):
    """A kind of sound: the function (rng, sampling_rate) -> float32 [5 s], and the phrases that say it is heard."""

    function: Callable[[np.random.Generator, int], np.ndarray]
    phrases: tuple[str, ...]  # for every split
    reserved: tuple[str, ...]  # for validation and test only


# fmt: off
SYNTHESIZERS: dict[str, Synthesizer] = {
    "siren": Synthesizer(siren,
        ("a siren wails", "a siren is wailing", "a police siren sounds", "an ambulance siren blares",
         "the siren of a fire truck howls", "an emergency siren goes off"),
        ("an emergency vehicle rushes past", "a police car races by", "an ambulance is on its way",
         "a patrol car wails")),
    "bell": Synthesizer(bell,
        ("a bell rings", "a church bell is ringing", "church bells toll", "a large bell tolls", "a bell is struck",
         "the bell of a church rings out"),
        ("a bronze bell chimes", "a cathedral calls to mass", "a bell tower sounds", "the chapel bell peals")),
    "dog": Synthesizer(dog,
        ("a dog barks", "a dog is barking", "dogs bark", "a puppy yaps", "a large dog barks loudly",
         "a dog lets out a few barks"),
        ("a hound woofs", "a canine is barking", "man's best friend barks", "a terrier yelps")),
    "rain": Synthesizer(rain,
        ("rain falls", "it is raining", "heavy rain pours down", "rain patters on the ground",
         "raindrops fall steadily", "rain drums on a roof"),
        ("a downpour continues", "there is a heavy shower", "water pours from the sky", "it drizzles outside")),
    "waves": Synthesizer(waves,
        ("waves crash", "sea waves roll in", "ocean waves wash ashore", "the sea washes the beach",
         "waves break on the shore", "surf rolls onto the sand"),
        ("the ocean surges", "breakers hit the coast", "the tide comes in", "the surf swells at the seaside")),
    "clock": Synthesizer(clock,
        ("a clock ticks", "a clock is ticking", "a wall clock ticks steadily", "a watch ticks",
         "the ticking of a clock goes on", "a clock ticks away the seconds"),
        ("a timepiece clicks regularly", "seconds tick by", "a grandfather clock ticks",
         "a tick-tock sound repeats")),
    "helicopter": Synthesizer(helicopter,
        ("a helicopter flies by", "a helicopter hovers", "a helicopter passes overhead", "helicopter blades spin",
         "the rotor of a helicopter whirs", "a helicopter is flying"),
        ("a chopper thumps overhead", "an aircraft with rotors hovers", "rotor blades beat the air",
         "a military chopper approaches")),
    "engine": Synthesizer(engine,
        ("an engine revs", "a car engine is running", "a motor revs up", "a car engine roars",
         "the engine of a car revs", "someone revs a car engine"),
        ("a driver steps on the gas", "a sports car accelerates", "an automobile is idling", "a vehicle speeds up")),
    "bird": Synthesizer(bird,
        ("a bird sings", "a bird is chirping", "birds chirp", "a small bird chirps", "a bird sings in a tree",
         "the song of a bird is heard"),
        ("a sparrow tweets", "a songbird twitters", "a canary warbles", "a robin greets the morning")),
    "whistle": Synthesizer(whistle,
        ("a train whistles", "a train whistle blows", "the whistle of a train sounds", "a train blows its horn",
         "a train horn sounds", "a steam train whistles"),
        ("a locomotive toots", "a railway engine hoots", "a steam locomotive announces itself",
         "a train nears a crossing and honks")),
    "knock": Synthesizer(knock,
        ("someone knocks on a door", "a person knocks", "someone is knocking", "there is a knock at the door",
         "a hand knocks on wood", "knocks sound on a wooden door"),
        ("a visitor raps on the door", "knuckles rap on wood", "a guest wants to be let in",
         "somebody pounds on a door")),
    "fire": Synthesizer(fire,
        ("a fire crackles", "a fire is burning", "a campfire crackles", "flames crackle", "wood burns and pops",
         "a bonfire burns"),
        ("logs burn in a fireplace", "a blaze snaps and pops", "embers hiss and pop", "kindling burns")),
    "alarm": Synthesizer(alarm,
        ("an alarm beeps", "an alarm is beeping", "a device beeps", "electronic beeps sound",
         "a digital alarm goes off", "something beeps again and again"),
        ("a smoke detector goes off", "a microwave has finished", "a pager bleeps", "a hospital monitor bleeps")),
    "thunder": Synthesizer(thunder,
        ("thunder rumbles", "thunder cracks", "there is a clap of thunder", "thunder rolls", "loud thunder booms",
         "thunder is heard"),
        ("lightning strikes nearby", "a storm booms in the distance", "a bolt of lightning hits",
         "a tempest growls")),
}
# fmt: on


# ---------------------------------------------------------------------------------------------------------- scenes

WHILE = (
    "{a} while {b}",
    "{a} as {b}",
    "{a} and at the same time {b}",
    "{b} in the background while {a}",
    "{a} and {b} at once",
)
THEN = ("{a} and then {b}", "{a}, and afterwards {b}", "first {a}, then {b}", "{a} before {b}", "after {a}, {b}")


def compositions(kinds: Iterable[str] | None = None) -> dict[str, list[tuple[str, ...]]]:
    """Every distinct content of a scene, by its form.

    ("one", a), ("while", a, b), ("then", a, b) for a then b, ("triple", a, b, c) for a while b, then c; a and b of a
    `while` in one order only, as their swap is the same content.
    """
    kinds = tuple(SYNTHESIZERS if kinds is None else kinds)
    pairs = list(itertools.combinations(kinds, 2))
    return {
        "one": [("one", a) for a in kinds],
        "while": [("while", a, b) for a, b in pairs],
        "then": [("then", a, b) for a, b in itertools.permutations(kinds, 2)],
        "triple": [("triple", a, b, c) for a, b in pairs for c in kinds if c not in (a, b)],
    }


FORMS = ("one", "while", "then", "then", "triple")  # drawn equally often: order is what is hardest to learn


def _training_contents(count: int, rng: random.Random) -> list[tuple[str, ...]]:
    contents = compositions()
    return [rng.choice(contents[rng.choice(FORMS)]) for _ in range(count)]


def _distinct_contents(count: int, rng: random.Random) -> list[tuple[str, ...]]:
    """`count` different contents, taken from the forms in turn until they run out."""
    left = compositions()
    for members in left.values():
        rng.shuffle(members)
    turns = itertools.cycle(FORMS)
    chosen: list[tuple[str, ...]] = []
    while len(chosen) < count:
        form = left[next(turns)]
        if form:
            chosen.append(form.pop())
    return chosen


def _events(content: tuple[str, ...], clips: dict[str, list[str]], rng: random.Random) -> list[dict]:
    """When each sound of the content is heard, and from which recording."""
    form, *kinds = content
    spans = {  # (onset, start, end) in seconds
        "one": lambda: [(rng.uniform(0, 3), 0.0, 5.0)],
        "while": lambda: [(rng.uniform(0, 3), 0.0, 5.0), (rng.uniform(0, 3), 0.0, 5.0)],
        "then": lambda: [(0.0, 0.0, rng.uniform(3.0, 3.8)), (rng.uniform(3.9, 4.2), 0.0, 4.0)],
        "triple": lambda: [(0.0, 0.0, 3.8), (rng.uniform(0, 0.3), 0.0, 3.5), (rng.uniform(3.9, 4.2), 0.0, 4.0)],
    }[form]()
    return [
        {
            "source": rng.choice(clips[kind]),
            "onset": round(onset, 3),
            "start": start,
            "end": round(end, 3),
            "gain_db": round(rng.uniform(-6, 0), 2),
        }
        for kind, (onset, start, end) in zip(kinds, spans, strict=True)
    ]


def _caption(content: tuple[str, ...], reserve: bool, rng: random.Random) -> str:
    """One caption without its full stop; with `reserve`, half of its phrases are those that training never shows."""
    form, *kinds = content
    phrases = [
        rng.choice(SYNTHESIZERS[kind].reserved if reserve and rng.random() < 0.5 else SYNTHESIZERS[kind].phrases)
        for kind in kinds
    ]
    both, last = phrases[:2], phrases[-1]
    if form in ("while", "triple"):
        rng.shuffle(both)
    if form == "one":
        text = last
    elif form == "while":
        text = rng.choice(WHILE).format(a=both[0], b=both[1])
    elif form == "then":
        text = rng.choice(THEN).format(a=both[0], b=last)
    else:  # only the templates that nest without ambiguity
        text = rng.choice(THEN[:3]).format(a=rng.choice(WHILE[:3]).format(a=both[0], b=both[1]), b=last)
    return text[0].upper() + text[1:]


def _captions(content: tuple[str, ...], reserve: bool, rng: random.Random) -> list[str]:
    """Five captions that differ in their words; two of three end with a full stop."""
    texts: dict[str, None] = {}  # in the order drawn
    while len(texts) < CAPTIONS_PER_SCENE:
        texts.setdefault(_caption(content, reserve, rng))
    return [text + rng.choice((".", ".", "")) for text in texts]


def _scenes(split: str, count: int, clips: dict[str, list[str]], seed: int) -> list[dict]:
    rng = random.Random(f"{seed} {split}")  # a string's seed is the same in every process and version of Python 3
    contents = _training_contents(count, rng) if split == "train" else _distinct_contents(count, rng)
    return [
        {
            "id": f"{split}-{number:04d}",
            "duration": SCENE_SECONDS,
            "labels": sorted(set(content[1:])),
            "events": _events(content, clips, rng),
            "captions": _captions(content, split != "train", rng),
        }
        for number, content in enumerate(contents)
    ]


# --------------------------------------------------------------------------------------------------- the whole set


def generate_soundscapes(
    folder: str | os.PathLike,
    num_train: int = 3000,
    num_validation: int = 200,
    num_test: int = 200,
    clips_per_kind: int = 25,
    seed: int = 2022,
) -> pathlib.Path:
    """Write a soundscape benchmark of synthetic recordings, if it does not exist yet.

    `folder/sources/<kind>/<n>.flac` are the recordings (5 s, 32 kHz, 16 bit), `folder/{train,validation,test}.jsonl`
    the scenes (8 s, five captions), `folder/soundscapes.json` the parameters. Of each kind's recordings, a fifth is
    for validation, a fifth for test, the rest for training. The same parameters give the same scenes. The folder
    appears only when all of it is written; a finished set with the same parameters is left as it is. A progress bar
    shows on a terminal.

    Args:
        folder: where to write; absent, empty, or a set of the same parameters.
        num_train: scenes for training, contents drawn at random.
        num_validation: scenes for validation, each content at most once.
        num_test: scenes for test, each content at most once.
        clips_per_kind: recordings of each kind of sound, at least 3.
        seed: of everything drawn.

    Returns:
        The folder, for `read_manifests(folder, folder / "sources")`.

    Raises:
        ValueError: a number is out of range.
        FileExistsError: the folder holds something else.
    """
    folder = pathlib.Path(folder)
    parameters = {
        "num_train": num_train,
        "num_validation": num_validation,
        "num_test": num_test,
        "clips_per_kind": clips_per_kind,
        "seed": seed,
        "version": VERSION,
    }
    _check_numbers(parameters)
    if _is_finished(folder, parameters):
        return folder
    # Next to the folder, so that the renaming stays within one file system and is atomic.
    with scratch_folder(folder.parent, f".{folder.name}{UNFINISHED}") as scratch:
        unfinished = scratch / "set"
        _write_set(unfinished, parameters)
        try:
            if folder.is_dir():
                folder.rmdir()  # Windows cannot rename onto an existing folder, even an empty one
            unfinished.rename(folder)
        except OSError:
            if not _is_finished(folder, parameters):  # otherwise another process was faster, with the same result
                raise
    return folder


def _check_numbers(parameters: dict[str, int]) -> None:
    contents = sum(len(members) for members in compositions().values())
    limits = {
        "num_train": (1, None),
        "num_validation": (1, contents),
        "num_test": (1, contents),
        "clips_per_kind": (3, None),
    }
    for name, (low, high) in limits.items():
        found = parameters[name]
        if found < low:
            raise ValueError(f"{name}: found {found}, expected at least {low}; ask for more")
        if high is not None and found > high:
            raise ValueError(
                f"{name}: found {found}, expected at most {high}, as {len(SYNTHESIZERS)} kinds of sound make {high} "
                "different contents and none may come twice (a query has one right answer); ask for fewer"
            )


def _is_finished(folder: pathlib.Path, parameters: dict[str, int]) -> bool:
    """Tell whether the folder holds the set of these parameters; raise an error if it holds something else."""
    if not folder.exists() or folder.is_dir() and not any(folder.iterdir()):
        return False
    try:
        found = json.loads((folder / "soundscapes.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileExistsError(
            f"{folder}: found something that is no soundscape set ({error}), expected no such folder or an empty one; "
            "choose another folder"
        ) from error
    if found != parameters:
        raise FileExistsError(
            f"{folder}: found a soundscape set of {found}, expected {parameters}; "
            "choose another folder, or remove this one"
        )
    return True


def _write_set(folder: pathlib.Path, parameters: dict[str, int]) -> None:
    clips = _write_sources(folder / "sources", parameters["clips_per_kind"], parameters["seed"])
    for split in SPLITS:
        scenes = _scenes(split, parameters[f"num_{split}"], clips[split], parameters["seed"])
        lines = "".join(json.dumps(scene) + "\n" for scene in scenes)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    (folder / "soundscapes.json").write_text(json.dumps(parameters, indent=2) + "\n", encoding="utf-8")


def _write_sources(folder: pathlib.Path, clips_per_kind: int, seed: int) -> dict[str, dict[str, list[str]]]:
    """Write the recordings; return split -> kind -> paths relative to the folder."""
    clips: dict[str, dict[str, list[str]]] = {split: {kind: [] for kind in SYNTHESIZERS} for split in SPLITS}
    held_out = max(clips_per_kind // 5, 1)
    splits = ["validation"] * held_out + ["test"] * held_out + ["train"] * (clips_per_kind - 2 * held_out)
    jobs = list(itertools.product(enumerate(SYNTHESIZERS), range(clips_per_kind)))
    for (index, kind), number in tqdm(jobs, desc="synthesizing", unit="clip", disable=None):  # None: only on a terminal
        # Each has its own seed, so that a recording does not depend on those before it.
        waveform = SYNTHESIZERS[kind].function(np.random.default_rng([seed, index, number]), SAMPLING_RATE)
        name = f"{kind}/{number:03d}.flac"
        (folder / kind).mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, waveform, SAMPLING_RATE, subtype="PCM_16")
        clips[splits[number]][kind].append(name)
    return clips


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python scripts/demo/synthesizers.py",
        description="Write a soundscape benchmark of synthetic sounds.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("folder", help="where to write")
    parser.add_argument("--num_train", type=int, default=3000, help="scenes for training")
    parser.add_argument("--num_validation", type=int, default=200, help="scenes for validation")
    parser.add_argument("--num_test", type=int, default=200, help="scenes for test")
    parser.add_argument("--clips_per_kind", type=int, default=25, help="recordings of each kind of sound")
    parser.add_argument("--seed", type=int, default=2022, help="of everything drawn")
    options = parser.parse_args(arguments)
    try:
        folder = generate_soundscapes(**vars(options))
    except (ValueError, OSError) as error:
        parser.exit(1, f"{error}\n")
    print(f"{folder}: {options.num_train} / {options.num_validation} / {options.num_test} scenes")


if __name__ == "__main__":
    main()
