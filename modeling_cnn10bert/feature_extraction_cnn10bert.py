# Copyright 2026 The cnn10bert authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Feature extractor of CNN10: waveform to log-mel spectrogram."""

import copy
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.audio_utils import mel_filter_bank
from transformers.utils import TensorType, logging

logger = logging.get_logger(__name__)

LOG_MEL_FLOOR = 1e-10  # of the mel power, so -100 dB: librosa's and PANNs' `amin`
MAX_SAMPLE = 1e9  # beyond any integer format; the power of larger samples could overflow float32
FULL_SCALES = {"int16": 2**15, "int32": 2**31}  # of PCM samples
FRAMES_AT_ONCE = 128  # on a CPU, so that intermediate results stay in its cache


class CNN10FeatureExtractor(SequenceFeatureExtractor):
    r"""
    Turn mono waveforms into log-mel spectrograms in dB, as PANNs and section 6.1 of Primus & Widmer (2022) do.

    STFT (Hann window, centered, reflect padding), power, mel filters (Slaney scale and Slaney norm), then
    `10 * log10(max(power, 1e-10))` without `top_db`. Each clip is computed by itself in float32 and padded afterwards,
    so its values never depend on the batch. Nothing is random.

    Args:
        feature_size (`int`, *optional*, defaults to 64):
            Number of mel bins.
        sampling_rate (`int`, *optional*, defaults to 32000):
            The only sampling rate (Hz) that is accepted.
        n_fft (`int`, *optional*, defaults to 1024):
            Length of the window and of the Fourier transform, in samples.
        hop_length (`int`, *optional*, defaults to 320):
            Samples from one frame to the next.
        f_min (`float`, *optional*, defaults to 50.0):
            Lower edge of the first mel filter (Hz).
        f_max (`float`, *optional*, defaults to 14000.0):
            Upper edge of the last mel filter (Hz).
        min_frames (`int`, *optional*, defaults to 16):
            A shorter clip is padded with zero samples to this number of frames, which the four poolings of CNN10 need.
            The added samples count as part of the clip.
        padding_value (`float`, *optional*, defaults to -100.0):
            Value (dB) of the frames after the end of a clip. The model masks them, so it only matters in plots.
    """

    model_input_names = ["input_features", "input_features_mask"]

    def __init__(
        self,
        feature_size: int = 64,
        sampling_rate: int = 32_000,
        n_fft: int = 1024,
        hop_length: int = 320,
        f_min: float = 50.0,
        f_max: float = 14_000.0,
        min_frames: int = 16,
        padding_value: float = -100.0,
        return_attention_mask: bool = True,
        **kwargs,
    ):
        super().__init__(
            feature_size=feature_size,
            sampling_rate=sampling_rate,
            padding_value=padding_value,
            return_attention_mask=return_attention_mask,
            **kwargs,
        )
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.f_min = f_min
        self.f_max = f_max
        self.min_frames = min_frames
        self.mel_filters = mel_filter_bank(
            num_frequency_bins=n_fft // 2 + 1,
            num_mel_filters=feature_size,
            min_frequency=f_min,
            max_frequency=f_max,
            sampling_rate=sampling_rate,
            norm="slaney",
            mel_scale="slaney",
        ).astype(np.float32)  # [n_fft // 2 + 1, n_mels]

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters without the mel filters, which follow from them."""
        output = copy.deepcopy(self.__dict__)
        output["feature_extractor_type"] = self.__class__.__name__
        del output["mel_filters"]
        return output

    def num_frames(self, num_samples: int) -> int:
        """Return the number of frames of a clip of `num_samples` samples."""
        return 1 + max(num_samples, self._min_samples) // self.hop_length

    @property
    def _min_samples(self) -> int:
        """Return the samples of `min_frames` frames, but more than half a window, which reflect padding needs."""
        return max((self.min_frames - 1) * self.hop_length, self.n_fft // 2 + 1)

    def log_mel(self, waveform: np.ndarray | torch.Tensor, device: str | torch.device = "cpu") -> torch.Tensor:
        """
        Compute the log-mel spectrogram of one clip.

        Args:
            waveform (`np.ndarray` or `torch.Tensor` of shape `(num_samples,)`):
                Mono samples in [-1, 1] at `sampling_rate`.
            device (`str` or `torch.device`, *optional*, defaults to `"cpu"`):
                Where to compute it.

        Returns:
            `torch.Tensor` of shape `(num_frames, n_mels)`: float32, dB, on `device`.
        """
        # Whatever precision the network runs in, the front end is float32: half a unit of bfloat16 is 0.25 dB at -80.
        with torch.autocast(device_type=torch.device(device).type, enabled=False):
            waveform = torch.as_tensor(waveform).to(device=device, dtype=torch.float32)
            missing = max(0, self._min_samples - len(waveform))
            waveform = torch.nn.functional.pad(waveform, (0, missing))
            # In float64 first: a window rounded at every step of its formula leaks into bins 100 dB below a loud one.
            window = torch.hann_window(self.n_fft, dtype=torch.float64).to(device=device, dtype=torch.float32)
            padded = torch.nn.functional.pad(waveform[None], (self.n_fft // 2, self.n_fft // 2), mode="reflect")[0]
            frames = padded.unfold(0, self.n_fft, self.hop_length)  # [num_frames, n_fft]
            # Each filter weight twice, for the squared real and the squared imaginary part of a bin.
            filters = torch.as_tensor(self.mel_filters, device=device).repeat_interleave(2, dim=0)
            at_once = FRAMES_AT_ONCE if frames.device.type == "cpu" else len(frames)
            mel = torch.cat([_mel(part, window, filters) for part in frames.split(at_once)])  # [num_frames, n_mels]
            return 10.0 * torch.log10(mel.clamp(min=LOG_MEL_FLOOR))

    def __call__(
        self,
        raw_speech: np.ndarray | torch.Tensor | list[float] | list[np.ndarray] | list[list[float]] | dict | list[dict],
        sampling_rate: int | None = None,
        padding: bool | str = True,
        max_length: int | None = None,
        truncation: bool = False,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | TensorType | None = None,
        device: str = "cpu",
        **kwargs,
    ) -> BatchFeature:
        """
        Compute the log-mel spectrograms of one clip or of a list of clips.

        Args:
            raw_speech (`np.ndarray`, `torch.Tensor`, `list[float]`, `dict`, a decoder or a list of these):
                One mono clip of shape `(num_samples,)`, a batch `(batch_size, num_samples)`, or a list of clips. The
                samples are floats in [-1, 1], or 16-bit or 32-bit integers. A clip may also be a dictionary with
                `array` and `sampling_rate`, or a decoder of `datasets` or torchcodec, whose channels are averaged.
            sampling_rate (`int`, *optional*):
                Sampling rate (Hz) of the clips. Giving it is strongly recommended: it guards against silent errors.
            padding (`bool` or `str`, *optional*, defaults to `True`):
                To the longest clip of the list (`True`), to `max_length` frames (`"max_length"`), or not at all.
            max_length (`int`, *optional*):
                Frames to pad or truncate to.
            truncation (`bool`, *optional*, defaults to `False`):
                Whether to cut clips to their first `max_length` frames.
            pad_to_multiple_of (`int`, *optional*):
                Pad the number of frames to a multiple of this value.
            return_attention_mask (`bool`, *optional*):
                Whether to return `input_features_mask`; by default as given to the constructor.
            return_tensors (`str` or [`~utils.TensorType`], *optional*):
                `"pt"` for torch tensors, `"np"` for numpy arrays.
            device (`str`, *optional*, defaults to `"cpu"`):
                Device on which the log-mel is computed.

        Returns:
            [`BatchFeature`] with `input_features` `(batch_size, num_frames, n_mels)`, float32 in dB, and
            `input_features_mask` `(batch_size, num_frames)`, 1 on the frames of the clip.

        Raises:
            ValueError: a sampling rate is not the extractor's, a clip is empty, not mono, not of floats or integers as
                above, or holds NaN, infinite or enormous samples, or no frame would be kept.
            TypeError: an argument is unknown.
        """
        # The library's processors pass on `load_audio_backend`, with which they have already read files.
        if unknown := sorted(kwargs.keys() - {"load_audio_backend"}):
            raise TypeError(
                f"{type(self).__name__} knows no argument {', '.join(map(repr, unknown))}; it takes raw_speech, "
                "sampling_rate, padding, max_length, truncation, pad_to_multiple_of, return_attention_mask, "
                "return_tensors and device"
            )
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length: expected at least 1 frame, found {max_length}.")
        clips = self.read_clips(raw_speech, sampling_rate)
        for _, rate in clips:
            if rate is None:
                logger.warning_once(
                    f"{type(self).__name__} was called without `sampling_rate`; it expects audio at "
                    f"{self.sampling_rate} Hz and cannot notice another rate. Pass the rate of your audio."
                )
            elif rate != self.sampling_rate:
                raise ValueError(
                    f"{type(self).__name__} expects audio at {self.sampling_rate} Hz, but `sampling_rate` is {rate}. "
                    "Resample the audio first, or let the processor do it."
                )
        features = BatchFeature({"input_features": [self.log_mel(clip, device).cpu().numpy() for clip, _ in clips]})
        padded = self.pad(
            features,
            padding=padding,
            max_length=max_length,
            truncation=truncation,
            pad_to_multiple_of=pad_to_multiple_of,
            return_attention_mask=return_attention_mask,
            return_tensors=return_tensors,
        )
        if "attention_mask" in padded:  # the name of the captions' mask in this model
            padded["input_features_mask"] = padded.pop("attention_mask")
        return padded

    def read_clips(self, audio: Any, sampling_rate: int | None = None) -> list[tuple[np.ndarray, int | None]]:
        """
        Read clips in any of the forms that `__call__` takes.

        Args:
            audio: one clip or several.
            sampling_rate: that of clips which do not come with their own (Hz).

        Returns:
            The samples of each clip `(num_samples,)`, float32 in [-1, 1], and its sampling rate (Hz), `None` if
            unknown.

        Raises:
            ValueError: a clip is not a mono waveform as described there.
        """
        if getattr(audio, "ndim", 1) == 2:
            if audio.shape[1] < audio.shape[0]:
                raise ValueError(
                    f"expected a batch of mono waveforms (batch_size, num_samples), found shape {tuple(audio.shape)}, "
                    "which has more clips than samples. Average the channels of a multichannel recording."
                )
            audio = list(audio)
        if not isinstance(audio, list | tuple) or (len(audio) > 0 and np.isscalar(audio[0])):
            return [self._read_clip(audio, sampling_rate)]
        if len(audio) == 0:
            raise ValueError("Expected at least one clip, found an empty list.")
        return [self._read_clip(clip, sampling_rate, f"clip {index}: ") for index, clip in enumerate(audio)]

    def _read_clip(self, audio, sampling_rate: int | None, name: str = "") -> tuple[np.ndarray, int | None]:
        """Read one clip; error messages begin with `name`."""
        if isinstance(audio, dict) and audio.get("array") is not None:
            rate = audio.get("sampling_rate", sampling_rate)
            return self._as_waveform(audio["array"], name), rate
        if hasattr(audio, "get_all_samples"):  # a decoder of `datasets` or torchcodec
            samples = audio.get_all_samples()
            return self._as_waveform(samples.data.mean(dim=0), name), samples.sample_rate
        return self._as_waveform(audio, name), sampling_rate

    def _as_waveform(self, audio, name: str) -> np.ndarray:
        """Validate the samples of one clip and return them as [num_samples] float32."""
        if isinstance(audio, torch.Tensor) and audio.is_floating_point():
            audio = audio.float()  # numpy has no bfloat16
        try:
            clip = audio.detach().cpu().numpy() if isinstance(audio, torch.Tensor) else np.asarray(audio)
        except ValueError:  # lists of different lengths within a clip
            clip = np.asarray(None)
        if not np.issubdtype(clip.dtype, np.number) and clip.dtype != bool:
            hint = " A dictionary needs an 'array' and its 'sampling_rate'." if isinstance(audio, dict) else ""
            raise ValueError(
                f"{name}expected a waveform, numbers in an array of shape (num_samples,), found "
                f"{type(audio).__name__}.{hint}"
            )
        if clip.ndim == 2 and clip.shape[0] == 1:
            clip = clip[0]  # (1, num_samples), as torchaudio reads a mono file
        if clip.ndim != 1:
            raise ValueError(
                f"{name}expected a mono waveform of shape (num_samples,), found shape {clip.shape}. "
                "Average the channels of a multichannel recording; give a batch as a list of mono waveforms."
            )
        if clip.size == 0:
            raise ValueError(f"{name}expected a waveform, found one without samples. Leave empty recordings out.")
        if clip.dtype.name in FULL_SCALES:
            return clip.astype(np.float32) / FULL_SCALES[clip.dtype.name]
        if not np.issubdtype(clip.dtype, np.floating):
            raise ValueError(
                f"{name}expected floating point samples in [-1, 1], int16 or int32, found {clip.dtype}. "
                "Divide other integer samples by their full scale, for example 8388608 for 24 bit."
            )
        if not np.isfinite(clip).all():
            bad = int(np.count_nonzero(~np.isfinite(clip)))
            raise ValueError(f"{name}expected finite samples, found {bad} NaN or infinite ones. Repair the recording.")
        if (peak := np.abs(clip).max()) > MAX_SAMPLE:
            raise ValueError(
                f"{name}expected samples in [-1, 1], found up to {peak:g}. Divide them by their full scale."
            )
        return clip.astype(np.float32)


def _mel(frames: torch.Tensor, window: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    """Compute the mel power [T, n_mels] of frames [T, n_fft]; `filters` is [2 * (n_fft // 2 + 1), n_mels]."""
    spectrum = torch.fft.rfft(frames * window)  # [T, n_fft // 2 + 1]
    return torch.view_as_real(spectrum).flatten(1).square_() @ filters


# Here and not in the package, so that what was loaded with the code of a checkpoint is saved with it again.
CNN10FeatureExtractor.register_for_auto_class()

__all__ = ["CNN10FeatureExtractor"]
