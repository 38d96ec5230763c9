"""The front end against two other libraries, its independence of batch and random state, and its errors."""

import json
import logging
import pickle
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor

from modeling_cnn10bert import CNN10FeatureExtractor

FLOOR = -80.0  # dB, below which float32 rounding of the STFT dominates


def worst_difference(ours, theirs):
    """Largest difference in dB where either is above the floor."""
    assert ours.shape == theirs.shape
    audible = (ours > FLOOR) | (theirs > FLOOR)
    return (ours - theirs).abs()[audible].max().item() if audible.any() else 0.0


@pytest.fixture(scope="module")
def torchaudio_log_mel():
    torchaudio = pytest.importorskip("torchaudio")
    mel = torchaudio.transforms.MelSpectrogram(
        sample_rate=32_000,
        n_fft=1024,
        hop_length=320,
        f_min=50.0,
        f_max=14_000.0,
        n_mels=64,
        power=2.0,
        norm="slaney",
        mel_scale="slaney",
    )
    return lambda waveform: 10 * mel(torch.as_tensor(waveform)).T.clamp(min=1e-10).log10()


@pytest.fixture(scope="module")
def panns_log_mel():
    """PANNs' own front end, with the settings of its Cnn10."""
    stft = pytest.importorskip("torchlibrosa.stft")
    spectrogram = stft.Spectrogram(
        n_fft=1024, hop_length=320, win_length=1024, window="hann", center=True, pad_mode="reflect"
    )
    log_mel = stft.LogmelFilterBank(
        sr=32_000, n_fft=1024, n_mels=64, fmin=50, fmax=14_000, ref=1.0, amin=1e-10, top_db=None
    )

    @torch.no_grad()
    def compute(waveform):
        return log_mel(spectrogram(torch.as_tensor(waveform)[None]))[0, 0]

    return compute


@pytest.mark.parametrize("other", ["torchaudio_log_mel", "panns_log_mel"])
def test_the_log_mel_of_real_recordings_is_the_other_librarys(other, request, feature_extractor, real_recordings):
    reference = request.getfixturevalue(other)
    worst = max(
        worst_difference(feature_extractor.log_mel(waveform), reference(waveform))
        for waveform in real_recordings.values()
    )
    assert worst <= 0.01


@pytest.mark.parametrize("other", ["torchaudio_log_mel", "panns_log_mel"])
def test_the_log_mel_of_noise_and_silence_is_the_other_librarys(other, request, feature_extractor, noise):
    reference = request.getfixturevalue(other)
    for num_samples in (40_000, 100_001):  # 126 frames, and 313: more than are computed at once
        assert worst_difference(feature_extractor.log_mel(noise(num_samples)), reference(noise(num_samples))) <= 0.01
    silence = np.zeros(40_000, np.float32)
    torch.testing.assert_close(feature_extractor.log_mel(silence), reference(silence))  # the floor, -100 dB


def test_a_sine_peaks_in_the_filter_of_its_frequency(feature_extractor):
    # Slaney's scale is linear below 1 kHz, 200/3 Hz a mel: 64 filters from 50 Hz (0.75 mel) to 14 kHz (53.4 mel) have
    # their centres (53.39 - 0.75) / 65 mel apart, so 500 Hz (7.5 mel) is nearest to centre 8.33, index 7.
    mel_14k = 15 + np.log(14) / (np.log(6.4) / 27)
    nearest = (7.5 - 0.75) / ((mel_14k - 0.75) / 65) - 1
    waveform = np.sin(2 * np.pi * 500 * np.arange(32_000) / 32_000)
    assert feature_extractor.log_mel(waveform).mean(dim=0).argmax().item() == round(nearest)


def test_each_clip_is_the_same_in_every_batch(feature_extractor, noise):
    clips = [noise(length) for length in (9_000, 33_333, 1, 20_000)]
    for batch in (clips, clips[::-1], clips[:2]):
        features = feature_extractor(batch, sampling_rate=32_000, return_tensors="pt")
        for row, clip in enumerate(batch):
            alone = feature_extractor(clip, sampling_rate=32_000, return_tensors="pt")["input_features"][0]
            assert torch.equal(features["input_features"][row, : len(alone)], alone)
            assert features["input_features_mask"][row].tolist() == [1] * len(alone) + [0] * (
                features["input_features"].shape[1] - len(alone)
            )


def test_each_real_recording_is_the_same_in_every_batch(feature_extractor, real_recordings):
    clips = list(real_recordings.values())[::5]
    features = feature_extractor(clips, sampling_rate=32_000, return_tensors="pt")["input_features"]
    for row, clip in enumerate(clips):
        alone = feature_extractor.log_mel(clip)
        assert torch.equal(features[row, : len(alone)], alone)


@pytest.mark.parametrize("num_samples", [1, 2, 319, 512, 513, 4_799, 4_800, 5_119, 5_120, 32_000, 32_001])
def test_the_number_of_frames_is_foretold(feature_extractor, noise, num_samples):
    frames = len(feature_extractor.log_mel(noise(num_samples)))
    assert frames == feature_extractor.num_frames(num_samples)
    assert frames == max(16, 1 + num_samples // 320)  # a centred STFT has a frame at 0, 320, 640, ...


def test_the_number_of_frames_is_foretold_for_other_settings(noise):
    extractor = CNN10FeatureExtractor(n_fft=2048, hop_length=500, min_frames=1)
    for num_samples in (1, 1_024, 1_025, 1_500, 7_777):
        assert len(extractor.log_mel(noise(num_samples))) == extractor.num_frames(num_samples)


def test_a_short_clip_is_filled_up_with_silence_that_counts(feature_extractor, noise):
    short = noise(1_000)
    filled = np.concatenate([short, np.zeros(15 * 320 - 1_000, np.float32)])
    outputs = feature_extractor(short, sampling_rate=32_000, return_tensors="pt")
    assert outputs["input_features_mask"].tolist() == [[1] * 16]
    assert torch.equal(outputs["input_features"][0], feature_extractor.log_mel(filled))


def test_kinds_of_waveform_agree(feature_extractor, noise):
    waveform = noise(8_000)
    expected = feature_extractor(waveform, sampling_rate=32_000)["input_features"][0]
    read_only = waveform.copy()
    read_only.flags.writeable = False
    kinds = [
        waveform.astype(np.float64),
        torch.from_numpy(waveform),
        waveform.tolist(),
        waveform[::-1][::-1],
        read_only,
        waveform[None],
        {"array": waveform, "sampling_rate": 32_000},
        {"array": torch.from_numpy(waveform)[None], "path": "dog.wav", "sampling_rate": 32_000},
    ]
    for kind in kinds:
        np.testing.assert_array_equal(feature_extractor(kind, sampling_rate=32_000)["input_features"][0], expected)
        np.testing.assert_array_equal(feature_extractor([kind], sampling_rate=32_000)["input_features"][0], expected)
    assert expected.dtype == np.float32


def test_a_two_dimensional_array_is_a_batch(feature_extractor, noise):
    clips = np.stack([noise(9_000), noise(18_000)[9_000:]])
    expected = feature_extractor(list(clips), sampling_rate=32_000, return_tensors="np")["input_features"]
    for batch in (clips, torch.from_numpy(clips)):
        found = feature_extractor(batch, sampling_rate=32_000, return_tensors="np")["input_features"]
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("dtype", "full_scale"), [(np.int16, 32_768), (np.int32, 2_147_483_648)])
def test_integer_samples_are_divided_by_their_full_scale(feature_extractor, noise, dtype, full_scale):
    integers = (noise(9_000) * 0.5 * full_scale).astype(dtype)
    found = feature_extractor(integers, sampling_rate=32_000)["input_features"]
    expected = feature_extractor(integers.astype(np.float32) / full_scale, sampling_rate=32_000)["input_features"]
    np.testing.assert_array_equal(found, expected)


def test_the_channels_of_a_decoder_are_averaged(feature_extractor, noise):
    left, right = noise(9_000), noise(18_000)[9_000:]

    class Decoder:  # as torchcodec's
        def get_all_samples(self):
            return SimpleNamespace(data=torch.from_numpy(np.stack([left, right])), sample_rate=32_000)

    found = feature_extractor(Decoder())["input_features"][0]
    np.testing.assert_allclose(
        found, feature_extractor((left + right) / 2, sampling_rate=32_000)["input_features"][0], atol=1e-4
    )


def test_the_front_end_stays_float32_under_autocast(feature_extractor, noise):
    plain = feature_extractor.log_mel(noise(8_000))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(feature_extractor.log_mel(noise(8_000)), plain)


def test_no_random_number_is_drawn(feature_extractor, noise):
    waveform = noise(20_000)
    outputs = []
    for seed in (0, 1):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()
        batch = feature_extractor([waveform, waveform[:3_000]], sampling_rate=32_000, return_tensors="pt")
        outputs.append(batch["input_features"])
        after = random.getstate(), np.random.get_state(), torch.get_rng_state()
        assert before[0] == after[0]
        np.testing.assert_equal(after[1], before[1])
        assert torch.equal(before[2], after[2])
    assert torch.equal(*outputs)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros((9_000, 2)), r"batch of mono waveforms .* found shape \(9000, 2\), .* Average the channels"),
        ([np.zeros((2, 9_000))], r"clip 0: expected a mono waveform .* found shape \(2, 9000\)"),
        (np.zeros((2, 3, 9_000)), r"mono waveform of shape \(num_samples,\), found shape \(2, 3, 9000\)"),
        ([np.zeros(9_000), np.zeros((9_000, 2))], r"clip 1: expected a mono.*found shape \(9000, 2\)"),
        (np.array([0.0, np.nan, 0.1]), "expected finite samples, found 1 NaN or infinite"),
        (np.array([np.inf, 0.0, -np.inf]), "expected finite samples, found 2 NaN or infinite"),
        (np.zeros(0), "found one without samples"),
        ([np.zeros(9_000), np.zeros(0)], "clip 1: .*found one without samples"),
        ([], "at least one clip, found an empty list"),
        (np.zeros(9_000, np.uint8), r"floating point samples in \[-1, 1\], int16 or int32, found uint8.*full scale"),
        ({"array": np.zeros(9_000), "sampling_rate": 44_100}, "at 32000 Hz, but `sampling_rate` is 44100. Resample"),
    ],
)
def test_unusable_audio_is_refused_by_what_was_found(feature_extractor, audio, message):
    with pytest.raises(ValueError, match=message):
        feature_extractor(audio, sampling_rate=32_000)


def test_another_sampling_rate_is_refused(feature_extractor, noise):
    with pytest.raises(ValueError, match="expects audio at 32000 Hz, but `sampling_rate` is 44100"):
        feature_extractor(noise(9_000), sampling_rate=44_100)


def test_a_missing_sampling_rate_is_warned_about(feature_extractor, noise, caplog):
    from transformers.utils import logging as transformers_logging

    logger = transformers_logging.get_logger("modeling_cnn10bert.feature_extraction_cnn10bert")
    transformers_logging.warning_once.cache_clear()  # whatever test came before
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.WARNING):
        feature_extractor(noise(9_000))
    logger.removeHandler(caplog.handler)
    assert "expects audio at 32000 Hz" in caplog.text


def test_padding_and_truncation_count_in_frames(feature_extractor, noise):
    clips = [noise(16_000), noise(32_000)]  # 51 and 101 frames

    def shapes(**options):
        outputs = feature_extractor(clips, sampling_rate=32_000, return_tensors="np", **options)
        return outputs["input_features"].shape[1], outputs["input_features_mask"].sum(axis=1).tolist()

    assert shapes() == (101, [51, 101])
    assert shapes(pad_to_multiple_of=16) == (112, [51, 101])
    assert shapes(padding="max_length", max_length=150) == (150, [51, 101])
    assert shapes(padding="max_length", max_length=60, truncation=True) == (60, [51, 60])
    unpadded = feature_extractor(clips, sampling_rate=32_000, padding=False)
    assert [len(clip) for clip in unpadded["input_features"]] == [51, 101]
    assert "input_features_mask" not in feature_extractor(clips, sampling_rate=32_000, return_attention_mask=False)


def test_padding_stands_at_the_floor(feature_extractor, noise):
    outputs = feature_extractor([noise(16_000), noise(32_000)], sampling_rate=32_000, return_tensors="np")
    assert (outputs["input_features"][0, 51:] == -100).all()
    assert (outputs["input_features"] >= -100).all()  # 10 log10(1e-10)


def test_settings_survive_json_pickle_and_a_save(tmp_path, noise):
    extractor = CNN10FeatureExtractor(
        feature_size=32, sampling_rate=16_000, n_fft=512, hop_length=160, f_min=20.0, f_max=7_000.0, min_frames=20
    )
    expected = extractor(noise(9_999), sampling_rate=16_000)["input_features"][0]
    extractor.save_pretrained(tmp_path)
    others = [
        CNN10FeatureExtractor.from_dict(extractor.to_dict()),
        CNN10FeatureExtractor.from_dict(json.loads(extractor.to_json_string())),
        CNN10FeatureExtractor.from_pretrained(tmp_path),
        AutoFeatureExtractor.from_pretrained(tmp_path),
        pickle.loads(pickle.dumps(extractor)),
    ]
    assert "mel_filters" not in extractor.to_dict()
    for other in others:
        assert type(other) is CNN10FeatureExtractor
        assert json.loads(other.to_json_string()).items() >= json.loads(extractor.to_json_string()).items()
        np.testing.assert_array_equal(other(noise(9_999), sampling_rate=16_000)["input_features"][0], expected)


def test_an_argument_that_it_does_not_know_is_refused(feature_extractor, noise):
    with pytest.raises(TypeError, match="knows no argument 'truncat'; it takes raw_speech, sampling_rate"):
        feature_extractor(noise(32_000), sampling_rate=32_000, truncat=True)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (None, "found NoneType"),
        ({"path": "dog.wav", "sampling_rate": 32_000}, "found dict. A dictionary needs an 'array'"),
        ([[0.1, [0.2]]], "clip 0: expected a waveform.* found list"),
        ("dog.wav", "found str"),
        (np.full(32_000, 1e300), r"samples in \[-1, 1\], found up to 1e\+300"),
        (np.full(32_000, 1e20, np.float32), r"samples in \[-1, 1\], found up to 1e\+20"),
    ],
)
def test_what_is_no_waveform_is_refused(feature_extractor, audio, message):
    with pytest.raises(ValueError, match=message):
        feature_extractor(audio, sampling_rate=32_000)


def test_samples_in_bfloat16_are_read(feature_extractor, noise):
    waveform = torch.from_numpy(noise(32_000)).bfloat16()
    found = feature_extractor(waveform, sampling_rate=32_000)["input_features"]
    np.testing.assert_array_equal(found, feature_extractor(waveform.float(), sampling_rate=32_000)["input_features"])


def test_no_frame_is_no_length(feature_extractor, noise):
    with pytest.raises(ValueError, match="max_length: expected at least 1 frame, found 0"):
        feature_extractor(noise(32_000), sampling_rate=32_000, max_length=0, truncation=True)
