"""The log-mel of ten-second clips on one core, against torchaudio's and that of transformers' CLAP."""

import time

import numpy as np
import torch
from transformers import ClapFeatureExtractor

from modeling_cnn10bert import CNN10FeatureExtractor

from .recordings import SECONDS, clips
from .report import Row, compared, figure
from .timing import in_turns, timed
from .torchaudio_log_mel import torchaudio_log_mel

SUBJECT = "features"
TORCHAUDIO = "torchaudio's MelSpectrogram and AmplitudeToDB"
CLAP = "transformers' ClapFeatureExtractor"


def clap_extractor(extractor: CNN10FeatureExtractor) -> ClapFeatureExtractor:
    """CLAP's with the parameters of ours; `rand_trunc` is its way to Slaney's mel scale, and nothing is truncated."""
    return ClapFeatureExtractor(
        feature_size=extractor.feature_size,
        sampling_rate=extractor.sampling_rate,
        hop_length=extractor.hop_length,
        max_length_s=SECONDS,
        fft_window_size=extractor.n_fft,
        frequency_min=extractor.f_min,
        frequency_max=extractor.f_max,
        truncation="rand_trunc",
    )


def measure(options) -> list[Row]:
    """Speed beside each reference, and the largest difference of a value."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measure(options)
    finally:
        torch.set_num_threads(threads)


def _measure(options) -> list[Row]:
    ours = CNN10FeatureExtractor()
    waveforms = clips(2 if options.quick else 16, ours.sampling_rate, options.sources)
    reference, clap = torchaudio_log_mel(ours), clap_extractor(ours)
    tensors = [torch.from_numpy(waveform) for waveform in waveforms]
    batch = torch.stack(tensors)

    def by_clap() -> np.ndarray:
        return clap(waveforms, sampling_rate=clap.sampling_rate, return_tensors="np")["input_features"][:, 0]

    # Processor time: one thread, so that other work on the machine matters little.
    calls = {
        "log_mel": lambda: [ours.log_mel(tensor) for tensor in tensors],
        "torchaudio": lambda: [reference(tensor) for tensor in tensors],
        "torchaudio, batch": lambda: reference(batch),
        "extractor": lambda: ours(waveforms, sampling_rate=ours.sampling_rate, return_tensors="np"),
        "clap": by_clap,
    }
    rounds = 1 if options.quick else max(9, options.rounds)
    seconds = in_turns({name: timed(call, time.process_time) for name, call in calls.items()}, rounds)
    milliseconds = {name: [1e3 * each / len(waveforms) for each in found] for name, found in seconds.items()}
    note = f"one thread, processor time of {len(waveforms)} clips of {SECONDS} s, {rounds} rounds in turns"

    log_mels = torch.stack([ours.log_mel(tensor) for tensor in tensors])
    difference = (log_mels - reference(batch).transpose(1, 2)).abs().max().item()
    difference_clap = np.abs(log_mels.numpy() - by_clap()).max().item()
    pairs = [
        ("log_mel", "torchaudio", f"{TORCHAUDIO}, a clip at a time", "log-mel of a clip", 1.5),
        ("log_mel", "torchaudio, batch", f"{TORCHAUDIO}, all at once", "log-mel of a clip", None),
        ("extractor", "clap", CLAP, "feature extractor, a clip", 3.0),
    ]
    return [
        *(
            compared(SUBJECT, what, "ms", milliseconds[a], name, milliseconds[b], target=target, note=note)
            for a, b, name, what, target in pairs
        ),
        figure(SUBJECT, "largest difference to torchaudio's", difference, "dB", note="of cells down to -100 dB"),
        figure(SUBJECT, "largest difference to CLAP's", difference_clap, "dB", note="it computes in float64"),
    ]
