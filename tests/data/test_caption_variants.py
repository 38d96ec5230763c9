"""Variants are added to a data set in place: all else stays, each caption is translated once, a kill costs nothing."""

import json
import multiprocessing
import os
import shutil

import datasets
import pytest
import soundfile

from modeling_cnn10bert.data.caption_variants import Progress, VariantCounts, add_back_translations
from modeling_cnn10bert.data.recipes.soundscapes import manifest_lines, read_manifest
from modeling_cnn10bert.errors import DataError


class Killed(BaseException):
    """Nothing of the code under test catches it."""


class Speaker:
    """Forth and back it says in a language what it hears; it remembers all batches, and dies where it is told to."""

    def __init__(self, language, identity="speaker", dies_at=None):
        self.language = language
        self.identity = identity
        self.dies_at = dies_at
        self.batches = []

    def __call__(self, sentences):
        if len(self.batches) == self.dies_at:
            raise Killed
        self.batches.append(list(sentences))
        return [self.say(sentence) for sentence in sentences]

    def say(self, sentence):
        if sentence == "silence":
            return " ... "
        return sentence.upper() + "!" if "same" in sentence else f"{sentence} ({self.language}, {self.identity})"


def _echo(sentences):
    return list(sentences)


_echo.identity = "echo"


@pytest.fixture
def speakers():
    """Language -> its speaker, made when asked for."""

    class Speakers(dict):
        def pair(self, language):
            return self.setdefault(language, Speaker(language)), _echo

    return Speakers()


def _rows(split, count):
    return [
        {
            "file_name": f"{split}-{number}.wav",
            "recording_id": f"{split}-{number}",
            "captions": [f"sound {number} of {split}", f"sound {number}", "a sound"],
            "log_mel": bytes([number]) * 1000,
        }
        for number in range(count)
    ]


@pytest.fixture
def saved(tmp_path):
    """A data set of two splits, in a folder with another file."""
    folder = tmp_path / "prepared"
    splits = {split: datasets.Dataset.from_list(_rows(split, 20)) for split in ("train", "test")}
    datasets.DatasetDict(splits).save_to_disk(folder)
    (folder / "train" / "NOTES.txt").write_text("mine")
    return folder


SCENE = {
    "duration": 1.0,
    "labels": [1],
    "events": [{"source": "a.wav", "onset": 0, "start": 0, "end": 1, "gain_db": -0.1}],
    "licence": "ours",
}


@pytest.fixture
def manifests(tmp_path):
    folder = tmp_path / "scenes"
    folder.mkdir()
    soundfile.write(folder / "a.wav", [0.5] * 100, 100)
    for split in ("train", "validation", "test"):
        rows = [SCENE | {"id": row["recording_id"], "captions": row["captions"]} for row in _rows(split, 6)]
        (folder / f"{split}.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    return folder


def _content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_caption_gets_its_variant_in_a_column_per_language(saved, speakers):
    before = datasets.load_from_disk(saved)
    counts = add_back_translations(saved, ["fr", "de"], speakers.pair)
    after = datasets.load_from_disk(saved)
    assert counts == {language: VariantCounts(41, 0, 0) for language in ("fr", "de")}
    assert after["test"].column_names == before["test"].column_names
    train = after["train"]
    assert train.column_names == [*before["train"].column_names, "back_translations_fr", "back_translations_de"]
    assert train.features["back_translations_de"] == datasets.List(datasets.Value("string"))
    for old, new in zip(before["train"], train, strict=True):
        assert {name: new[name] for name in old} == old
        assert new["back_translations_de"] == [f"{caption} (de, speaker)" for caption in old["captions"]]
        assert new["back_translations_fr"] == [f"{caption} (fr, speaker)" for caption in old["captions"]]


def test_each_different_caption_is_translated_once(saved, speakers):
    add_back_translations(saved, ["de"], speakers.pair, batch_size=8)
    translated = [caption for batch in speakers["de"].batches for caption in batch]
    assert len(translated) == len(set(translated)) == 41
    assert max(map(len, speakers["de"].batches)) == 8


def test_whatever_else_lies_in_the_folder_stays_and_nothing_lies_beside_it(saved, speakers):
    before = _content(saved)
    add_back_translations(saved, ["de"], speakers.pair)
    after = _content(saved)
    assert set(before) == set(after)
    changed = {str(path) for path in before if before[path] != after[path]}
    assert changed == {f"train/{name}" for name in ("state.json", "dataset_info.json", "data-00000-of-00001.arrow")}
    assert [path.name for path in saved.parent.iterdir()] == ["prepared"]


def test_a_single_data_set_is_translated_whatever_its_split(tmp_path, speakers):
    datasets.Dataset.from_list(_rows("some", 4)).with_format("numpy").save_to_disk(tmp_path / "single")
    add_back_translations(tmp_path / "single", ["de"], speakers.pair)
    table = datasets.load_from_disk(tmp_path / "single")
    assert table.with_format(None)[3]["back_translations_de"][2] == "a sound (de, speaker)"


def test_a_second_run_changes_nothing_and_loads_no_model(saved, speakers):
    add_back_translations(saved, ["de"], speakers.pair)
    times = {path: path.stat().st_mtime_ns for path in saved.rglob("*")}
    assert add_back_translations(saved, ["de", "de"], lambda _: pytest.fail("a model was loaded")) == {}
    assert {path: path.stat().st_mtime_ns for path in saved.rglob("*")} == times
    assert [path.name for path in saved.parent.iterdir()] == ["prepared"]


def test_another_language_or_split_keeps_what_is_there(saved, speakers):
    add_back_translations(saved, ["de"], speakers.pair)
    german = datasets.load_from_disk(saved)["train"]["back_translations_de"][:]
    counts = add_back_translations(saved, ["de", "es"], speakers.pair, splits=["train", "test"])
    assert counts == {"de": VariantCounts(41, 0, 0), "es": VariantCounts(61, 0, 0)}  # the splits share 21
    loaded = datasets.load_from_disk(saved)
    assert loaded["train"]["back_translations_de"][:] == german
    for split in ("train", "test"):
        assert loaded[split][5]["back_translations_de"][0] == f"sound 5 of {split} (de, speaker)"
        assert loaded[split][5]["back_translations_es"][0] == f"sound 5 of {split} (es, speaker)"


@pytest.mark.parametrize("kind", ["saved data set", "manifests"])
def test_recordings_that_were_added_are_translated_alone(kind, saved, manifests, speakers):
    folder = saved if kind == "saved data set" else manifests
    add_back_translations(folder, ["de"], lambda _: (Speaker("de", identity="first"), _echo))
    if folder == saved:
        table = datasets.load_from_disk(saved)["train"]
        variants = [None if row in (3, 7) else texts for row, texts in enumerate(table["back_translations_de"])]
        table = table.remove_columns("back_translations_de").add_column("back_translations_de", variants)
        datasets.DatasetDict(train=table).save_to_disk(saved.with_name("changed"))
        shutil.rmtree(saved)
        saved.with_name("changed").rename(saved)
    else:
        lines = [json.loads(line) for _, line in manifest_lines(folder / "train.jsonl")]
        for row in (3,):
            del lines[row]["back_translations"]
        (folder / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    counts = add_back_translations(folder, ["de"], speakers.pair)
    translated = {caption for batch in speakers["de"].batches for caption in batch}
    rows = (3, 7) if folder == saved else (3,)
    assert translated == {text for row in rows for text in (f"sound {row} of train", f"sound {row}")}
    assert counts["de"].captions == len(translated)
    if folder == saved:
        column = datasets.load_from_disk(saved)["train"]["back_translations_de"][:]
    else:
        column = [json.loads(line)["back_translations"]["de"] for _, line in manifest_lines(folder / "train.jsonl")]
    assert column[3] == ["sound 3 of train (de, speaker)", "sound 3 (de, speaker)", "a sound (de, first)"]
    assert column[4] == [f"{text} (de, first)" for text in ("sound 4 of train", "sound 4", "a sound")]


def test_unchanged_captions_are_counted_and_empty_variants_replaced(tmp_path, speakers):
    captions = [["silence", "the same", "Always the same.", "thunder"], ["silence", "the same"]]
    datasets.Dataset.from_dict({"captions": captions}).save_to_disk(tmp_path / "table")
    assert add_back_translations(tmp_path / "table", ["de"], speakers.pair) == {"de": VariantCounts(4, 2, 1)}
    assert datasets.load_from_disk(tmp_path / "table")["back_translations_de"][:] == [
        ["silence", "THE SAME!", "ALWAYS THE SAME.!", "thunder (de, speaker)"],
        ["silence", "THE SAME!"],
    ]


# --------------------------------------------------------------------------------------------------------- resuming


def test_a_killed_run_goes_on_with_the_same_batches(saved, tmp_path, speakers):
    datasets.load_from_disk(saved).save_to_disk(tmp_path / "uninterrupted")
    add_back_translations(tmp_path / "uninterrupted", ["de"], speakers.pair, batch_size=4)
    whole = speakers["de"].batches

    before = _content(saved)
    first, second = Speaker("de", dies_at=5), Speaker("de")
    with pytest.raises(Killed):
        add_back_translations(saved, ["de"], lambda _: (first, _echo), batch_size=4)
    assert _content(saved) == before
    counts = add_back_translations(saved, ["de"], lambda _: (second, _echo), batch_size=4)
    assert counts == {"de": VariantCounts(41, 0, 0)}
    assert first.batches == whole[:5]
    assert second.batches == whole[5:]
    resumed, uninterrupted = (datasets.load_from_disk(f)["train"] for f in (saved, tmp_path / "uninterrupted"))
    assert resumed.data.table.equals(uninterrupted.data.table)
    assert {path.name for path in saved.parent.iterdir()} == {"prepared", "uninterrupted"}


@pytest.mark.parametrize("change", ["model forth", "model back", "batch size", "captions"])
def test_what_another_model_or_data_set_left_is_never_taken(change, saved, tmp_path):
    with pytest.raises(Killed):
        add_back_translations(saved, ["de"], lambda _: (Speaker("de", dies_at=5), _echo), batch_size=4)
    speaker, back = Speaker("de", "another" if change == "model forth" else "speaker"), _echo
    if change == "model back":
        back = Speaker("en", "another")
    if change == "captions":
        datasets.DatasetDict(train=datasets.Dataset.from_list(_rows("train", 19))).save_to_disk(saved)
    add_back_translations(saved, ["de"], lambda _: (speaker, back), batch_size=5 if change == "batch size" else 4)
    assert sum(map(len, speaker.batches)) == (39 if change == "captions" else 41)
    assert not (tmp_path / ".prepared-back_translations").exists()


@pytest.mark.parametrize("moment", ["save_to_disk", "replace"])
def test_a_kill_while_the_data_set_is_written_loses_nothing(moment, saved, speakers, monkeypatch):
    def kill(*_, **__):
        raise Killed

    before = _content(saved)
    monkeypatch.setattr({"save_to_disk": datasets.Dataset, "replace": os}[moment], moment, kill)
    with pytest.raises(Killed):
        add_back_translations(saved, ["de"], speakers.pair)
    monkeypatch.undo()
    assert _content(saved) == before
    add_back_translations(saved, ["de"], lambda _: (Speaker("de", dies_at=0), _echo))  # all is translated already
    assert datasets.load_from_disk(saved)["train"][0]["back_translations_de"][2] == "a sound (de, speaker)"
    assert [path.name for path in saved.parent.iterdir()] == ["prepared"]


@pytest.mark.parametrize(
    "broken", ['{"piece": 2, "resul', "\0\0\0\n", '{"piece": 2, "results": ["c"]}', "[]\n", '{"piece": 2}\n']
)
def test_a_line_that_a_kill_broke_off_is_written_again(broken, tmp_path):
    path = tmp_path / "progress.jsonl"
    with Progress(path) as progress:
        progress.append(0, ["a\u2028é", ""])
        progress.append(1, ["b"])
    whole = path.read_bytes()
    with path.open("a") as file:
        file.write(broken)
    with Progress(path) as progress:
        assert progress.done == {0: ["a\u2028é", ""], 1: ["b"]}
        progress.append(2, ["c"])
    assert path.read_bytes() == whole + json.dumps({"piece": 2, "results": ["c"]}).encode() + b"\n"


def test_a_piece_is_on_disk_as_soon_as_it_is_finished(tmp_path):
    with Progress(tmp_path / "progress.jsonl") as progress:
        progress.append(0, ["a"])
        assert (tmp_path / "progress.jsonl").read_bytes().count(b"\n") == 1


def test_one_run_at_a_time(saved, speakers):
    context = multiprocessing.get_context("fork")
    held, done = context.Event(), context.Event()

    def hold(_):
        held.set()
        done.wait(60)
        return speakers.pair("de")

    other = context.Process(target=add_back_translations, args=(saved, ["de"], hold))
    other.start()
    assert held.wait(60)
    with pytest.raises(DataError, match="found another run at work on it"):
        add_back_translations(saved, ["de"], speakers.pair)
    done.set()
    other.join(60)
    assert add_back_translations(saved, ["de"], speakers.pair) == {}


# -------------------------------------------------------------------------------------------------------- manifests


def test_manifests_get_their_variants_line_by_line(manifests, speakers):
    before = _content(manifests)
    assert add_back_translations(manifests, ["fr", "de"], speakers.pair)["de"] == VariantCounts(13, 0, 0)
    after = _content(manifests)
    assert {str(path) for path in before if before[path] != after[path]} == {"train.jsonl"}
    assert set(after) == set(before)
    for old, new in zip(*(json_lines(c) for c in (before, after)), strict=True):
        assert {name: new[name] for name in old} == old
        assert new["back_translations"]["de"] == [f"{caption} (de, speaker)" for caption in old["captions"]]
    scene = read_manifest(manifests / "train.jsonl", manifests)[0]
    assert list(scene.back_translations) == ["de", "fr"]
    assert add_back_translations(manifests, ["de"], speakers.pair) == {}


def json_lines(content):
    lines = next(text for path, text in content.items() if path.name == "train.jsonl").decode().split("\n")
    return [json.loads(line) for line in lines if line.strip()]


def test_a_killed_run_over_manifests_goes_on(manifests, speakers, tmp_path):
    before = _content(manifests)
    with pytest.raises(Killed):
        add_back_translations(manifests, ["de"], lambda _: (Speaker("de", dies_at=2), _echo), batch_size=4)
    assert _content(manifests) == before
    add_back_translations(manifests, ["de"], speakers.pair, batch_size=4)
    assert sum(map(len, speakers["de"].batches)) == 13 - 8
    assert json_lines(_content(manifests))[5]["back_translations"]["de"][1] == "sound 5 (de, speaker)"
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]


@pytest.mark.parametrize(
    "line", ["no json", "[]", '{"id": "x"}', '{"captions": "a"}', '{"captions": ["a"], "back_translations": 3}']
)
def test_a_manifest_line_that_cannot_be_used_is_named(line, manifests, speakers):
    (manifests / "train.jsonl").write_text(json.dumps({"captions": ["a dog"]}) + "\n" + line)
    with pytest.raises(DataError, match=r"train\.jsonl:2: captions: found .* a list of captions"):
        add_back_translations(manifests, ["de"], speakers.pair)


# -------------------------------------------------------------------------------------------------------- bad input


def test_a_data_set_without_captions_names_its_columns(tmp_path, speakers):
    datasets.Dataset.from_dict({"caption": ["a dog"], "length": [3]}).save_to_disk(tmp_path / "table")
    with pytest.raises(DataError, match="column captions: found only caption, length"):
        add_back_translations(tmp_path / "table", ["de"], speakers.pair)
    assert [path.name for path in tmp_path.iterdir()] == ["table"]


@pytest.mark.parametrize("captions", [["a dog"], [["a dog", None]], [[3]]])
def test_captions_that_are_no_lists_of_texts_are_named(captions, tmp_path, speakers):
    datasets.Dataset.from_dict({"captions": captions}).save_to_disk(tmp_path / "table")
    with pytest.raises(DataError, match="column captions: row 0: found .*, expected a list of texts"):
        add_back_translations(tmp_path / "table", ["de"], speakers.pair)


def test_a_split_that_is_not_there_names_those_that_are(saved, manifests, speakers):
    with pytest.raises(DataError, match="found the splits train, test, expected validation"):
        add_back_translations(saved, ["de"], speakers.pair, splits=["train", "validation"])
    (manifests / "test.jsonl").unlink()
    with pytest.raises(DataError, match="found the splits train, validation, expected test"):
        add_back_translations(manifests, ["de"], speakers.pair, splits=["test"])


def test_a_folder_of_something_else_is_one_clear_error(tmp_path, speakers):
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="folder: found no prepared data set, expected a folder written by"):
        add_back_translations(tmp_path / "folder", ["de"], speakers.pair)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_no_folder_is_one_clear_error_and_makes_none(tmp_path, speakers):
    with pytest.raises(DataError, match="missing: found no such folder"):
        add_back_translations(tmp_path / "missing", ["de"], speakers.pair)
    assert list(tmp_path.iterdir()) == []
