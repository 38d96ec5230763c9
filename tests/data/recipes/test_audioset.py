"""AudioSet from its segment files into shards, and back out of the stream."""

import datasets
import pytest
import torch
from torch.utils.data import DataLoader

from modeling_cnn10bert.data.audio_io import decode_audio
from modeling_cnn10bert.data.recipes import audioset
from modeling_cnn10bert.data.recipes.audioset import (
    audioset_entries,
    multi_hot,
    num_shards,
    open_stream,
    read_class_names,
    read_labels,
)
from modeling_cnn10bert.data.recipes.youtube import YouTubeFolder
from modeling_cnn10bert.errors import DataError

CLIPS = 43


@pytest.fixture(scope="module")
def source(tmp_path_factory, write_tone, write_csv):
    """Segment files, a label file of 527 classes and clips; of the last three, one is broken, two absent."""
    folder = tmp_path_factory.mktemp("source")
    classes = [[n, f"/m/{n:03d}", f"class {n}"] for n in range(527)]
    write_csv(folder / "labels.csv", ["index", "mid", "display_name"], *classes)
    header = "# Segments csv created Sun Mar  5 10:54:31 2017\n# num_ytids=43, num_segs=43\n"
    header += "# YTID, start_seconds, end_seconds, positive_labels\n"
    lines = [f'{_id(n)}, 30.000, 40.000, "/m/{n:03d},/m/526"\n' for n in range(CLIPS)]
    (folder / "balanced_train_segments.csv").write_text(header + "".join(lines))
    (folder / "eval_segments.csv").write_text(header + lines[0])
    for number in range(CLIPS - 3):
        name = f"Y{_id(number)}.wav" if number % 2 else f"{_id(number)}_30.wav"
        write_tone(folder / "clips" / str(number % 3) / name, 500 + 20 * number, seconds=0.2, rate=16_000)
    (folder / "clips" / f"Y{_id(CLIPS - 3)}.wav").write_bytes(b"no sound")
    return folder


def _id(number):
    return f"-_Yabcde{number:03d}"


def _arguments(source, out, *segments):
    segments = [str(source / f"{name}_segments.csv") for name in segments or ("balanced_train", "eval")]
    return [str(out), *segments, "--labels", str(source / "labels.csv"), "--audio", str(source / "clips")]


@pytest.fixture(scope="module")
def prepared(source, cnn10bert, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "out"
    cnn10bert("prepare", "audioset", *_arguments(source, out))
    return out


def test_clips_come_out_of_the_stream_with_their_classes(prepared):
    rows = list(open_stream(prepared, "balanced_train"))
    assert [row["file_name"] for row in rows] == [f"Y{_id(number)}.wav" for number in range(CLIPS - 3)]
    for number, row in enumerate(rows):
        assert row["recording_id"] == f"balanced_train/Y{_id(number)}.wav"
        assert row["labels"] == [number, 526]
        waveform = decode_audio(row["audio"]["bytes"], 32_000, row["file_name"])
        assert len(waveform) == 6400
        assert row["duration"] == pytest.approx(0.2)
    targets = multi_hot([row["labels"] for row in rows])
    assert targets.shape == (CLIPS - 3, 527)
    assert targets.sum(dim=1).tolist() == [2.0] * (CLIPS - 3)
    assert torch.equal(targets[7].nonzero().flatten(), torch.tensor([7, 526]))
    assert len(list(open_stream(prepared, "eval"))) == 1


def test_what_was_left_out_is_listed(prepared, read_csv):
    _, *rows = read_csv(prepared / "skipped.csv")
    assert [row[1] for row in rows] == [f"Y{_id(number)}.wav" for number in range(CLIPS - 3, CLIPS)]
    assert "do not decode" in rows[0][2]
    assert f"found none of Y{_id(41)}.*, {_id(41)}_30.000.*, {_id(41)}_30.*" in rows[1][2]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("nodes", [1, 3, 4])
def test_nodes_and_workers_cover_each_clip_exactly_once(nodes, workers, prepared):
    seen = []
    for rank in range(nodes):
        stream = open_stream(prepared, "balanced_train", rank, nodes).select_columns(["file_name"])
        part = [name for batch in DataLoader(stream, batch_size=4, num_workers=workers) for name in batch["file_name"]]
        assert part
        seen += part
    assert sorted(seen) == [f"Y{_id(number)}.wav" for number in range(CLIPS - 3)]


def test_a_shuffled_stream_is_another_order_of_the_same_clips(prepared):
    stream = open_stream(prepared, "balanced_train").select_columns(["file_name"])
    in_order = [row["file_name"] for row in stream]
    shuffled = [row["file_name"] for row in stream.shuffle(seed=1, buffer_size=10)]
    assert shuffled != in_order
    assert sorted(shuffled) == in_order


def test_running_again_changes_nothing_and_adds_what_is_new(
    source, cnn10bert, tmp_path, snapshot, write_tone, monkeypatch
):
    out = tmp_path / "out"
    cnn10bert("prepare", "audioset", *_arguments(source, out, "balanced_train"))
    before = snapshot(out / "data")
    cnn10bert("prepare", "audioset", *_arguments(source, out, "balanced_train"))
    assert snapshot(out / "data") == before

    new = write_tone(source / "clips" / f"Y{_id(42)}.wav", seconds=0.2)
    cnn10bert("prepare", "audioset", *_arguments(source, out, "balanced_train"))
    new.unlink()
    after = snapshot(out / "data")
    changed = {name.split(".")[0] for name in after if after[name] != before.get(name)}
    assert changed == {"balanced_train-00004-of-00005"}
    assert len(list(open_stream(out, "balanced_train"))) == CLIPS - 2


def test_a_preparation_that_died_does_not_read_as_complete(source, cnn10bert, tmp_path, monkeypatch):
    class Killed(BaseException):
        """Like a signal: nothing catches it."""

    out, written, write = tmp_path / "out", [], audioset.write_shards.__globals__["write_shard"]

    def die(shard, folder, known):
        if len(written) == 2:
            raise Killed
        written.append(shard.name)
        return write(shard, folder, known)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("modeling_cnn10bert.data.prepare.write_shard", die)
        cnn10bert("prepare", "audioset", *_arguments(source, out, "balanced_train"), "--num_proc", "1")
    with pytest.raises(DataError, match="found no whole data set, expected the split balanced_train; prepare it"):
        open_stream(out, "balanced_train")
    cnn10bert("prepare", "audioset", *_arguments(source, out, "balanced_train"))
    assert len(list(open_stream(out, "balanced_train"))) == CLIPS - 3
    with pytest.raises(DataError, match="found the splits balanced_train, expected the split test"):
        open_stream(out, "test")


def test_strict_makes_an_error_of_a_clip_that_is_left_out(source, cnn10bert, tmp_path):
    words = _arguments(source, tmp_path / "out", "balanced_train")
    assert "3 of 43 recordings cannot be used" in cnn10bert("prepare", "audioset", *words, "--strict", code=1).stderr
    with pytest.raises(DataError, match="found no whole data set"):
        open_stream(tmp_path / "out", "balanced_train")


def test_two_million_clips_are_shared_equally_by_usual_numbers_of_nodes_and_workers():
    assert num_shards(2_000_000) == 2048
    assert num_shards(10_000) == 64
    assert num_shards(43) == 5


def test_the_real_label_file(shared_data):
    path = shared_data / "audioset" / "class_labels_indices.csv"
    labels, names = read_labels(path), read_class_names(path)
    assert len(labels) == len(names) == 527
    assert (labels["/m/09x0r"], names[0]) == (0, "Speech")
    assert (labels["/m/07hvw1"], names[526]) == (526, "Field recording")


def test_a_faulty_line_is_left_out_and_listed(source, tmp_path, read_csv):
    recordings, labels = YouTubeFolder(source / "clips"), read_labels(source / "labels.csv")
    lines = [f'{_id(0)}, 30.000, 40.000, "/m/000"', f'{_id(1)}, 30.000, 40.000, "/m/nobody"', f"{_id(2)}, 30.000"]
    lines += [f'{_id(3)}, late, 40.000, "/m/003"', f'{_id(0)}, 30.000, 40.000, "/m/005"']
    (tmp_path / "bad_segments.csv").write_text("\n".join(lines))
    entries = audioset_entries(tmp_path / "bad_segments.csv", labels, recordings)
    result = audioset.prepare_audioset({"bad": entries}, tmp_path / "out")
    assert result.prepared == {"bad": 1}
    _, *skipped = read_csv(tmp_path / "out" / "skipped.csv")
    assert [name for _, name, _ in skipped] == [f"bad_segments.csv:{line}" for line in (2, 3, 4, 5)]
    assert [reason.split(", expected")[0].split("found ")[1] for _, _, reason in skipped] == [
        "the unknown class '/m/nobody'",
        f"the cells '{_id(2)}', '30.000'",
        f"the cells '{_id(3)}', 'late', '40.000', '/m/003'",
        f"the id '{_id(0)}' again",
    ]


def test_a_faulty_file_is_named(source, tmp_path):
    recordings, labels = YouTubeFolder(source / "clips"), read_labels(source / "labels.csv")
    with pytest.raises(DataError, match="No such file"):
        audioset_entries(tmp_path / "absent.csv", labels, recordings)
    (tmp_path / "labels.csv").write_text("index,mid,display_name\n0,/m/0,Speech\n")
    with pytest.raises(DataError, match="found 1 classes, expected 527"):
        read_labels(tmp_path / "labels.csv")
    for index in ("none", "\N{SUPERSCRIPT TWO}", "9" * 5000, "-1"):
        (tmp_path / "labels.csv").write_text(f"index,mid,display_name\n{index},/m/0,Speech\n", encoding="utf-8")
        with pytest.raises(DataError, match=rf"labels\.csv:2: found the index '{index[:80]}', expected a number"):
            read_labels(tmp_path / "labels.csv")
    (tmp_path / "labels.csv").write_text("number,name\n0,Speech\n")
    with pytest.raises(DataError, match="found the columns number, name, expected display_name, index, mid"):
        read_labels(tmp_path / "labels.csv")


def test_its_features_are_those_of_the_schema():
    assert isinstance(audioset.FEATURES, datasets.Features)
    assert list(audioset.FEATURES) == ["file_name", "recording_id", "audio", "duration", "labels"]
