"""What the clip cache holds: by keys alone, in bounds, and made once."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile

from modeling_cnn10bert import CNN10FeatureExtractor
from modeling_cnn10bert.errors import AudioError
from modeling_cnn10bert.page import clip_cache as module
from modeling_cnn10bert.page.clip_cache import ClipCache
from modeling_cnn10bert.page.clips import Span


@pytest.fixture
def recording(tmp_path):
    noise = 0.1 * np.random.default_rng(0).standard_normal((80_000, 2))
    soundfile.write(tmp_path / "noise.wav", noise, 8000)
    return str(tmp_path / "noise.wav")


def test_a_key_is_the_same_for_the_same_part_and_tells_nothing_of_the_path(recording):
    one, other = ClipCache(CNN10FeatureExtractor()), ClipCache(CNN10FeatureExtractor())
    key = one.put(Span(recording, 0.0, 5.0))
    assert key == one.put(Span(recording, 0.0, 5.0)) != one.put(Span(recording, 1.0, 5.0))
    assert key != other.put(Span(recording, 0.0, 5.0))  # so that nobody can compute it


def test_a_clip_is_the_part_that_was_asked_for(recording):
    clip_cache = ClipCache(CNN10FeatureExtractor())
    heard, rate = soundfile.read(clip_cache.clip(clip_cache.put(Span(recording, 2.0, 4.5))))
    expected, _ = soundfile.read(recording)
    assert rate == 8000 and heard.shape == (20_000, 2)
    assert np.abs(heard - expected[16_000:36_000]).max() <= 2**-15


def test_files_are_kept_up_to_a_bound_and_those_not_asked_for_go_first(recording):
    clip_cache = ClipCache(CNN10FeatureExtractor(), max_bytes=1)
    keys = [clip_cache.put(Span(recording, float(start), start + 1.0)) for start in range(8)]
    size = clip_cache.clip(keys[0]).stat().st_size
    clip_cache.max_bytes = 4 * size  # noise: all clips are about as long
    for key in keys:
        clip_cache.clip(keys[0])
        path = clip_cache.clip(key)
    kept = {file.stem for file in path.parent.iterdir()}
    assert keys[0] in kept and keys[-1] in kept and 2 <= len(kept) <= 4
    assert sum(file.stat().st_size for file in path.parent.iterdir()) <= 4 * size
    assert clip_cache.clip(keys[1]).is_file()  # made again


def test_what_a_cleaner_of_temporary_folders_deletes_is_made_again(recording):
    clip_cache = ClipCache(CNN10FeatureExtractor())
    key = clip_cache.put(Span(recording, 0.0, 1.0))
    clip_cache.clip(key).unlink()
    assert clip_cache.clip(key).is_file()
    shutil.rmtree(clip_cache.clip(key).parent)
    assert clip_cache.picture(key).is_file() and clip_cache.clip(key).is_file()


def test_a_closed_clip_cache_leaves_nothing(recording):
    clip_cache = ClipCache(CNN10FeatureExtractor())
    path = clip_cache.clip(clip_cache.put(Span(recording, 0.0, 1.0)))
    clip_cache.close()
    assert not path.parent.exists()


def test_keys_of_long_ago_are_forgotten(recording):
    clip_cache = ClipCache(CNN10FeatureExtractor(), max_spans=2)
    keys = [clip_cache.put(Span(recording, float(start), start + 1.0)) for start in range(3)]
    with pytest.raises(KeyError):
        clip_cache.clip(keys[0])
    assert clip_cache.clip(keys[1]) and clip_cache.clip(keys[2])


def test_a_clip_that_many_ask_for_at_once_is_made_once(recording, monkeypatch):
    made, all_wait = [], threading.Barrier(8)
    encode = module.encode_clip
    monkeypatch.setattr(module, "encode_clip", lambda *span: made.append(1) or encode(*span))
    clip_cache = ClipCache(CNN10FeatureExtractor())
    key = clip_cache.put(Span(recording, 0.0, 1.0))
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda _: all_wait.wait() >= 0 and clip_cache.clip(key), range(8)))
    assert len(made) == 1 and len(paths) == 1


def test_a_recording_that_is_gone_is_an_error_that_names_it(recording, tmp_path):
    clip_cache = ClipCache(CNN10FeatureExtractor())
    key = clip_cache.put(Span(str(tmp_path / "gone.wav"), 0.0, 1.0))
    with pytest.raises(AudioError, match=r"gone\.wav: found no such file"):
        clip_cache.clip(key)
    with pytest.raises(AudioError, match=r"noise\.wav: found nothing from 60 s on"):
        clip_cache.picture(clip_cache.put(Span(recording, 60.0, 61.0)))
