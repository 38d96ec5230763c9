"""A few scenes mixed from tones and noises, the same as every form of data set, and an embedder of given vectors."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from modeling_cnn10bert.data.prepare import prepare_dataset
from modeling_cnn10bert.data.recipes.audio_folder import own_recordings
from modeling_cnn10bert.data.recipes.soundscapes import SourceBank, read_manifest, render
from modeling_cnn10bert.evaluation.recordings import Recording
from modeling_cnn10bert.retrieval.records import ModelIdentity

SOUNDS = {"dog": 300, "bark": 900, "siren": 2500, "water": 6000, "rain": None}  # a tone in Hz, or noise
NUM_SCENES = 14


@pytest.fixture(scope="session")
def soundscapes(tmp_path_factory):
    """The folder of manifests of 14 test scenes and 3 validation scenes of 1.5 s, two to three captions each."""
    folder = tmp_path_factory.mktemp("soundscapes")
    generator = np.random.default_rng(0)
    for name, frequency in SOUNDS.items():
        (folder / "sources").mkdir(exist_ok=True)
        noise = 0.1 * generator.standard_normal(24_000)
        tone = 0 if frequency is None else np.sin(2 * np.pi * frequency * np.arange(24_000) / 24_000)
        soundfile.write(folder / "sources" / f"{name}.wav", 0.4 * tone + noise, 24_000)
    for split, count in (("test", NUM_SCENES), ("validation", 3)):
        lines = [json.dumps(_scene(split, number, generator)) for number in range(count)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    return folder


def _scene(split, number, generator):
    first, second = generator.choice(list(SOUNDS), 2, replace=False)
    events = [
        {
            "source": f"{name}.wav",
            "onset": round(generator.uniform(0, 0.8), 2),
            "start": 0,
            "end": round(generator.uniform(0.3, 1), 2),
            "gain_db": round(generator.uniform(-9, 0), 1),
        }
        for name in (first, second)
    ]
    captions = [f"a {first} while the {second}, {number}", f"the sound of {second} is {number}", f"this is {first}"]
    captions = captions[: 2 + number % 2]
    return {"id": f"{split}-{number}", "duration": 1.5, "labels": [0], "events": events, "captions": captions}


@pytest.fixture(scope="session")
def scenes(soundscapes):
    """File name -> waveform at 32 kHz and captions of the test scenes."""
    bank = SourceBank(soundscapes / "sources", 32_000)
    scenes = read_manifest(soundscapes / "test.jsonl", soundscapes / "sources")
    return {f"{scene.id}.wav": (render(scene, bank), scene.captions) for scene in scenes}


@pytest.fixture(scope="session")
def metadata_folder(scenes, tmp_path_factory):
    """The test scenes as a folder of recordings with metadata.jsonl."""
    folder = tmp_path_factory.mktemp("own") / "sounds"
    folder.mkdir()
    for name, (waveform, _) in scenes.items():
        soundfile.write(folder / name, waveform, 32_000, subtype="FLOAT")
    lines = [json.dumps({"file_name": name, "captions": captions}) for name, (_, captions) in scenes.items()]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="session")
def prepared_folder(metadata_folder, tmp_path_factory):
    """The test scenes as a prepared data set of one split, `test`."""
    splits, features = own_recordings(str(metadata_folder))
    prepared = tmp_path_factory.mktemp("prepared") / "set"
    prepare_dataset({"test": splits["train"]}, features, prepared)
    return prepared


@pytest.fixture
def write_csv():
    """Writes a CSV file of rows and returns its path."""

    def write(path, *rows):
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
        return path

    return write


@pytest.fixture
def given_embeddings():
    """Makes recordings with captions and an embedder that gives them the vectors [A, D] and [C, D] that are passed."""

    def make(audio, text, recording_of_text, names=None):
        names = names or [f"{number}.wav" for number in range(len(audio))]
        calls = SimpleNamespace(audio=0, text=[])

        class Embedder:
            identity = ModelIdentity("given vectors", None, "0" * 8, audio.shape[1], {})
            sampling_rate = 8_000

            def embed_audio(self, waveforms):
                calls.audio += len(waveforms)
                return np.stack([audio[int(waveform[0])] for waveform in waveforms]).astype(np.float32)

            def embed_text(self, texts):
                calls.text += texts
                return np.stack([text[int(caption.split()[-1])] for caption in texts]).astype(np.float32)

        captions = [
            tuple(f"caption {row}" for row, of in enumerate(recording_of_text) if of == number)
            for number in range(len(audio))
        ]
        recordings = [
            Recording(name, texts, lambda rate, number=number: np.full(rate // 1000, number, dtype=np.float32))
            for number, (name, texts) in enumerate(zip(names, captions, strict=True))
        ]
        return Embedder(), recordings, calls

    return make
