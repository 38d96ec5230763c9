"""torchaudio's log-mel, the reference of ours."""

import torch
import torchaudio

from modeling_cnn10bert import CNN10FeatureExtractor


def torchaudio_log_mel(extractor: CNN10FeatureExtractor) -> torch.nn.Module:
    """[..., samples] to [..., n_mels, T] in dB, with the parameters of our extractor."""
    return torch.nn.Sequential(
        torchaudio.transforms.MelSpectrogram(
            extractor.sampling_rate,
            n_fft=extractor.n_fft,
            hop_length=extractor.hop_length,
            f_min=extractor.f_min,
            f_max=extractor.f_max,
            n_mels=extractor.feature_size,
            norm="slaney",
            mel_scale="slaney",
        ),
        torchaudio.transforms.AmplitudeToDB("power"),
    )
