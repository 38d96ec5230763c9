"""Measure the log-mel of ten-second clips on one core, against torchaudio and transformers' CLAP."""

from pathlib import Path

import numpy as np
import torch
import torchaudio
from transformers import ClapFeatureExtractor

from modeling_cnn10bert import CNN10FeatureExtractor

from .harness import Row, compared, figure, seconds_in_turns
from .inputs import SECONDS, clips

TORCHAUDIO = "torchaudio's MelSpectrogram and AmplitudeToDB"


def torchaudio_log_mel(extractor: CNN10FeatureExtractor) -> torch.nn.Module:
    """Make torchaudio's transform of [..., samples] to [..., n_mels, T] in dB, with the parameters of our extractor."""
    spectrogram = torchaudio.transforms.MelSpectrogram(
        extractor.sampling_rate,
        n_fft=extractor.n_fft,
        hop_length=extractor.hop_length,
        f_min=extractor.f_min,
        f_max=extractor.f_max,
        n_mels=extractor.feature_size,
        norm="slaney",
        mel_scale="slaney",
    )
    return torch.nn.Sequential(spectrogram, torchaudio.transforms.AmplitudeToDB("power"))


def clap_extractor(extractor: CNN10FeatureExtractor) -> ClapFeatureExtractor:
    """Make CLAP's extractor with our parameters; `rand_trunc` has Slaney's mel scale, and nothing is truncated."""
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


def measure(folder: Path, options) -> list[Row]:
    torch.set_num_threads(1)
    ours = CNN10FeatureExtractor()
    waveforms = clips(16 if options.size.apart else 2, ours.sampling_rate, options.sources)
    reference, clap = torchaudio_log_mel(ours), clap_extractor(ours)
    tensors = [torch.from_numpy(waveform) for waveform in waveforms]
    batch = torch.stack(tensors)

    def by_clap() -> np.ndarray:
        return clap(waveforms, sampling_rate=clap.sampling_rate, return_tensors="np")["input_features"][:, 0]

    calls = {
        "log_mel": lambda: [ours.log_mel(tensor) for tensor in tensors],
        "torchaudio": lambda: [reference(tensor) for tensor in tensors],
        "torchaudio, batch": lambda: reference(batch),
        "extractor": lambda: ours(waveforms, sampling_rate=ours.sampling_rate, return_tensors="np"),
        "clap": by_clap,
    }
    rounds = max(9, options.size.rounds) if options.size.apart else 1
    seconds = seconds_in_turns(calls, rounds)
    milliseconds = {name: [1e3 * each / len(waveforms) for each in found] for name, found in seconds.items()}
    note = f"one thread, processor time of {len(waveforms)} clips of {SECONDS} s, {rounds} rounds in turns"

    log_mels = torch.stack([ours.log_mel(tensor) for tensor in tensors])
    difference = (log_mels - reference(batch).transpose(1, 2)).abs().max().item()
    difference_clap = np.abs(log_mels.numpy() - by_clap()).max().item()
    rows = [
        ("log-mel of a clip", "log_mel", f"{TORCHAUDIO}, a clip at a time", "torchaudio", 1.5),
        ("log-mel of a clip", "log_mel", f"{TORCHAUDIO}, all at once", "torchaudio, batch", None),
        ("feature extractor, a clip", "extractor", "transformers' ClapFeatureExtractor", "clap", 3.0),
    ]
    return [
        *(
            compared(what, "ms", milliseconds[a], name, milliseconds[b], target=target, note=note)
            for what, a, name, b, target in rows
        ),
        figure("largest difference to torchaudio's", difference, "dB", note="of cells down to -100 dB"),
        figure("largest difference to CLAP's", difference_clap, "dB", note="it computes in float64"),
    ]
