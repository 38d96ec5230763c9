"""The feature cache keeps log-mels to half a step, whole tables only, computed once."""

import datasets
import numpy as np
import pytest
import torch

from modeling_cnn10bert.data.features import (
    LOG_MEL_STEP,
    TABLE_FEATURES,
    MelStatistics,
    cached_table,
    decode_log_mel,
    encode_log_mel,
    log_mel_columns,
)
from modeling_cnn10bert.errors import DataError

KEY = {"features": {"feature_size": 4}, "what": "a test"}


def _table(log_mels):
    rows = [
        {
            "file_name": f"{index}.wav",
            "recording_id": f"r{index}",
            "captions": ["a sound"],
            **log_mel_columns(log_mel),
        }
        for index, log_mel in enumerate(log_mels)
    ]
    return datasets.Dataset.from_list(rows, features=TABLE_FEATURES)


def _log_mels(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [-100 + 130 * torch.rand(frames, 4, generator=generator) for frames in (3, 50, 7)]


def test_a_log_mel_comes_back_within_half_a_step():
    log_mel = torch.cat([_log_mels()[1], torch.tensor([[-163.0, 163.0, 0.0, -100.0]])])
    decoded = decode_log_mel(encode_log_mel(log_mel), 4)
    assert decoded.dtype == torch.float32
    assert decoded.shape == log_mel.shape
    assert (decoded - log_mel).abs().max() <= LOG_MEL_STEP / 2 * 1.01  # float32 rounds at 163 dB
    assert len(encode_log_mel(log_mel)) == 2 * log_mel.numel()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 164.0, -164.0])
def test_a_value_that_16_bits_do_not_hold_is_an_error(bad):
    log_mel = torch.full((5, 4), -40.0)
    log_mel[2, 1] = bad
    with pytest.raises(ValueError, match=r"must be within \+-164 dB"):
        encode_log_mel(log_mel)


def test_a_table_is_computed_once_and_memory_mapped(tmp_path):
    calls = []

    def compute(scratch):
        calls.append(1)
        return _table(_log_mels())

    tables = [cached_table(tmp_path, "set", KEY, compute) for _ in range(3)]
    assert len(calls) == 1
    for table in tables:
        assert table.features == TABLE_FEATURES
        assert table.cache_files  # the data lie in a file and not in memory
        assert decode_log_mel(table[1]["log_mel"], 4).shape == (50, 4)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\0" * 50, None])
@pytest.mark.parametrize("name", ["state.json", "dataset_info.json", "data-00000-of-00001.arrow"])
def test_a_table_that_is_damaged_is_named(name, content, tmp_path):
    cached_table(tmp_path, "set", KEY, lambda scratch: _table(_log_mels()))
    (path,) = tmp_path.glob(f"set-*/table/{name}")
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    if (name, content) == ("dataset_info.json", b"{}"):  # says nothing, and hides nothing
        assert len(cached_table(tmp_path, "set", KEY, None)) == 3
        return
    with pytest.raises(DataError, match=r"set-.*table: found a data set with a file that is missing or damaged"):
        cached_table(tmp_path, "set", KEY, None)


@pytest.mark.parametrize("name", ["file/cache", "a\0b", "x" * 300])
def test_a_cache_that_no_folder_can_be_is_named(name, tmp_path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(DataError, match="cache_dir .*expected a folder, or the name of a new one"):
        cached_table(tmp_path / name, "set", KEY, lambda scratch: _table(_log_mels()))


def test_another_key_is_another_table(tmp_path):
    first = cached_table(tmp_path, "set", KEY, lambda _: _table(_log_mels(0)))
    second = cached_table(tmp_path, "set", {**KEY, "what": "another test"}, lambda _: _table(_log_mels(1)))
    assert first[0]["log_mel"] != second[0]["log_mel"]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("when", ["while computing", "while writing", "before the last step"])
def test_a_preparation_that_died_leaves_nothing_that_reads_as_complete(when, tmp_path, monkeypatch):
    class Killed(BaseException):
        """Like a signal: nothing catches it, and the clean-up does not run either."""

    def die(*args, **kwargs):
        raise Killed

    def compute(scratch):
        return die() if when == "while computing" else _table(_log_mels())

    with monkeypatch.context() as patch:
        patch.setattr("modeling_cnn10bert.files.shutil.rmtree", lambda *args, **kwargs: None)
        if when == "while writing":
            patch.setattr("modeling_cnn10bert.data.features.datasets.Dataset.save_to_disk", die)
        if when == "before the last step":
            patch.setattr("modeling_cnn10bert.data.features.Path.rename", die)
        with pytest.raises(Killed):
            cached_table(tmp_path, "set", KEY, compute)
    assert len(list(tmp_path.iterdir())) == 1  # what a killed process leaves behind

    calls = []
    table = cached_table(tmp_path, "set", KEY, lambda _: calls.append(1) or _table(_log_mels()))
    assert calls == [1]
    assert len(table) == 3
    assert len(list(tmp_path.iterdir())) == 1  # the next one deletes it


def test_two_preparations_at_once_do_not_meet(tmp_path):
    quicker = []

    def compute(scratch):  # meanwhile another process prepares the same
        quicker.append(cached_table(tmp_path, "set", KEY, lambda _: _table(_log_mels())))
        return _table(_log_mels())

    table = cached_table(tmp_path, "set", KEY, compute)
    assert table["log_mel"][:] == quicker[0]["log_mel"][:]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_recording_has_the_statistics_of_its_stored_values():
    log_mel = _log_mels()[1]
    columns = log_mel_columns(log_mel)
    stored = decode_log_mel(columns["log_mel"], 4).numpy()
    assert columns["length"] == 50
    np.testing.assert_allclose(columns["mel_mean"], stored.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(columns["mel_std"], stored.std(axis=0), atol=1e-4)


def test_the_overall_mean_counts_every_frame_alike():
    long, short = torch.full((90, 4), -30.0), torch.full((10, 4), -80.0)
    statistics = MelStatistics.of_table(_table([long, short]))
    np.testing.assert_allclose(statistics.overall_mean, [-35.0] * 4, atol=1e-4)  # 0.9 * -30 + 0.1 * -80
    np.testing.assert_allclose(statistics.mean, [[-30.0] * 4, [-80.0] * 4], atol=1e-4)
    np.testing.assert_allclose(statistics.std, np.zeros((2, 4)), atol=1e-4)
