"""Embedders of PyTorch: independence of the batch, models of other kinds, and which model is which."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, ClapConfig, ClapFeatureExtractor, ClapModel, ClapProcessor

from modeling_cnn10bert.errors import RetrievalError
from modeling_cnn10bert.retrieval.embedding import check_same_model, load_embedder
from modeling_cnn10bert.retrieval.model_inputs import BATCH_SECONDS, ModelInputs

CAPTIONS = ["a dog", "The rain of this dog is a siren!", "water drips while a siren wails", "rain", "a bark, a bark"]


@pytest.fixture
def embedder(tiny_folder):
    return load_embedder(tiny_folder[0], device="cpu")


@pytest.fixture
def clap_folder(tmp_path, tokenizer):
    """Makes a saved toy CLAP with random weights; `truncation` as of its feature extractor."""

    def make(truncation):
        torch.manual_seed(0)
        text = {"vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        text |= {"intermediate_size": 20, "max_position_embeddings": 40, "pad_token_id": 1}
        audio = {"depths": [1, 1], "num_attention_heads": [1, 2], "patch_embeds_hidden_size": 8, "hidden_size": 16}
        audio |= {"enable_fusion": truncation == "fusion"}
        model = ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=12))
        model.save_pretrained(tmp_path / truncation)
        extractor = ClapFeatureExtractor(truncation=truncation)
        ClapProcessor(extractor, tokenizer).save_pretrained(tmp_path / truncation)
        return tmp_path / truncation

    return make


def one_by_one(embed, inputs):
    return np.concatenate([embed([value]) for value in inputs])


def assert_unit_rows(embeds, rows):
    assert embeds.shape[0] == rows and embeds.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeds, axis=1), 1, atol=1e-6)


def test_a_recording_has_the_same_embedding_alone_and_among_others_of_any_length(embedder, real_recordings, noise):
    waveforms = [noise(100), *list(real_recordings.values())[::6], noise(32_000), noise(31_999)]
    together = embedder.embed_audio(waveforms)
    assert_unit_rows(together, len(waveforms))
    np.testing.assert_allclose(together, one_by_one(embedder.embed_audio, waveforms), atol=1e-5)


def test_embeddings_are_those_of_the_model_in_the_order_of_the_input(embedder, tiny_folder, processor, noise):
    model = tiny_folder[1]
    waveforms = [noise(length) for length in (20_000, 90_000, 5_000, 64_000)]
    with torch.no_grad():
        inputs = [processor(audio=clip, sampling_rate=32_000, return_tensors="pt") for clip in waveforms]
        audio = [model.get_audio_features(**clip).pooler_output for clip in inputs]
        text = [model.get_text_features(**processor(text=text, return_tensors="pt")).pooler_output for text in CAPTIONS]
    np.testing.assert_allclose(embedder.embed_audio(waveforms), torch.cat(audio), atol=1e-5)
    np.testing.assert_allclose(embedder.embed_text(CAPTIONS), torch.cat(text), atol=1e-5)


def test_a_text_has_the_same_embedding_alone_and_among_others(embedder):
    together = embedder.embed_text(CAPTIONS)
    assert_unit_rows(together, len(CAPTIONS))
    np.testing.assert_allclose(together, one_by_one(embedder.embed_text, CAPTIONS), atol=1e-5)


def test_nothing_to_embed_gives_no_rows(embedder):
    assert embedder.embed_audio([]).shape == embedder.embed_text([]).shape == (0, 12)


def test_more_than_a_batch_is_embedded_in_batches_of_that_size(tiny_folder, noise, monkeypatch):
    embedder = load_embedder(tiny_folder[0], device="cpu", batch_size=2)
    waveforms = [noise(6_000 + 400 * number) for number in range(5)]
    sizes, run = [], embedder._run
    monkeypatch.setattr(
        embedder, "_run", lambda tower, batch: sizes.append(len(batch["input_features"])) or run(tower, batch)
    )
    together = embedder.embed_audio(waveforms)
    assert sizes == [2, 2, 1]
    np.testing.assert_allclose(together, one_by_one(embedder.embed_audio, waveforms), atol=1e-5)


def test_long_recordings_make_smaller_batches(embedder, noise):
    rate = embedder.sampling_rate
    waveforms = [noise(int(BATCH_SECONDS * rate / 2.5)), *[noise(rate) for _ in range(3)]] * 2
    batches = list(embedder._inputs.audio(waveforms))
    assert [len(batch.rows) for batch in batches] == [2, 6]
    assert sorted(row for batch in batches for row in batch.rows) == list(range(8))


def test_bfloat16_stays_close_to_float32(tiny_folder, embedder, real_recordings):
    half = load_embedder(tiny_folder[0], device="cpu", dtype="bfloat16")
    waveforms = list(real_recordings.values())[:4]
    for exact, rounded in (
        (embedder.embed_audio(waveforms), half.embed_audio(waveforms)),
        (embedder.embed_text(CAPTIONS), half.embed_text(CAPTIONS)),
    ):
        assert_unit_rows(rounded, len(exact))
        assert not np.array_equal(exact, rounded)
        assert (exact * rounded).sum(axis=1).min() > 0.999


def test_a_text_of_five_thousand_words_is_cut_to_the_first(embedder):
    long = " ".join(["rain drips"] * 2_500)
    np.testing.assert_allclose(embedder.embed_text([long]), embedder.embed_text([long[:500]]), atol=1e-6)


@pytest.mark.parametrize("text", ["", "  ", "?!...", "\N{EM DASH}", None])
def test_a_text_without_a_word_is_refused(embedder, text):
    with pytest.raises(RetrievalError, match="holds no word"):
        embedder.embed_text(["a dog", text])


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (np.zeros((2, 100), np.float32), "mono"),
        (np.zeros(0, np.float32), "mono"),
        (np.zeros(100, np.int16), "int16"),
        (np.full(100, np.nan, np.float32), "100 NaN"),
    ],
)
def test_what_is_no_mono_waveform_is_refused(embedder, noise, waveform, message):
    with pytest.raises(RetrievalError, match=f"recording 1: .*{message}"):
        embedder.embed_audio([noise(100), waveform])


@pytest.mark.parametrize("truncation", ["rand_trunc", "fusion"])
def test_clap_embeds_without_chance_and_without_touching_numpys_state(clap_folder, truncation, noise):
    embedder = load_embedder(clap_folder(truncation), device="cpu")
    assert embedder.sampling_rate == 48_000 and embedder.identity.dimension == 12
    waveforms = [noise(48_000), noise(480_001), noise(1_000), noise(900_000)]
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    together = embedder.embed_audio(waveforms)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    assert_unit_rows(together, len(waveforms))
    np.testing.assert_allclose(together, one_by_one(embedder.embed_audio, waveforms), atol=1e-5)
    texts = ["a dog", "rain " * 5_000]
    np.testing.assert_allclose(embedder.embed_text(texts), one_by_one(embedder.embed_text, texts), atol=1e-5)


def test_a_clip_too_long_for_clap_is_the_mean_of_its_pieces(clap_folder, noise):
    embedder = load_embedder(clap_folder("rand_trunc"), device="cpu")
    clip = noise(25 * 48_000)
    pieces = embedder.embed_audio([clip[: 10 * 48_000], clip[10 * 48_000 : 20 * 48_000], clip[15 * 48_000 :]])
    mean = pieces.sum(axis=0)
    np.testing.assert_allclose(embedder.embed_audio([clip])[0], mean / np.linalg.norm(mean), atol=1e-5)


def test_a_model_keeps_its_identity_when_it_is_copied_loaded_and_saved_again(tiny_folder, embedder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_folder[0], copy)
    embedder.model.save_pretrained(copy)
    weights = load_file(copy / "model.safetensors")  # in another order, with other metadata
    save_file(dict(reversed(weights.items())), copy / "model.safetensors", metadata={"format": "pt", "of": "a test"})
    given = load_embedder(copy, device="cpu", dtype="bfloat16").identity
    assert given.name == str(copy) and embedder.identity.name == str(tiny_folder[0])
    assert given == dataclasses.replace(embedder.identity, name=given.name)
    check_same_model(embedder.identity, given)


def test_the_number_of_weight_files_does_not_change_the_identity(embedder, tiny_folder, tmp_path):
    shutil.copytree(tiny_folder[0], tmp_path / "shards", ignore=shutil.ignore_patterns("*.safetensors"))
    embedder.model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    assert load_embedder(tmp_path / "shards", device="cpu").identity.fingerprint == embedder.identity.fingerprint


def test_one_changed_weight_is_another_model(embedder, tiny_folder):
    path = tiny_folder[0] / "model.safetensors"
    weights = load_file(path)
    weights["audio_projection.out.bias"][3] += 1e-3
    save_file(weights, path, metadata={"format": "pt"})
    given = load_embedder(tiny_folder[0], device="cpu").identity
    with pytest.raises(RetrievalError, match="weights .fingerprint") as error:
        check_same_model(embedder.identity, given)
    assert embedder.identity.fingerprint[:12] in str(error.value) and given.fingerprint[:12] in str(error.value)


def test_another_feature_extractor_or_dimension_is_another_model(embedder):
    stored = embedder.identity
    given = dataclasses.replace(stored, name="elsewhere", features={**stored.features, "hop_length": 640})
    with pytest.raises(RetrievalError, match="hop_length 320 and 640") as error:
        check_same_model(stored, given)
    assert stored.name in str(error.value) and "elsewhere" in str(error.value)
    with pytest.raises(RetrievalError, match="dimension .12 and 7"):
        check_same_model(stored, dataclasses.replace(stored, dimension=7))


def test_a_missing_folder_or_an_unreachable_model_is_named(tmp_path, monkeypatch):
    with pytest.raises(RetrievalError, match="no such folder"):
        load_embedder(tmp_path / "missing")
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RetrievalError, match="runs/dmeo: found no such folder"):  # beside others, so no id of the Hub
        load_embedder("runs/dmeo")
    with pytest.raises(RetrievalError, match="cannot load nobody/nothing .* has in its cache"):
        load_embedder("nobody/nothing")
    with pytest.raises(RetrievalError, match="cannot load"):
        load_embedder(tmp_path)


def test_a_model_of_one_tower_is_refused(tmp_path):
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=20, **text)).save_pretrained(tmp_path)
    with pytest.raises(RetrievalError, match="BertModel, which has no get_audio_features and no get_text_features"):
        load_embedder(tmp_path)


def test_a_model_without_its_processor_or_with_missing_weights_is_refused(tiny_folder):
    folder = tiny_folder[0]
    weights = load_file(folder / "model.safetensors")
    save_file({"audio_projection.out.bias": weights["audio_projection.out.bias"]}, folder / "model.safetensors")
    with pytest.raises(RetrievalError, match="model.safetensors: found no weights as .*audio_model"):
        load_embedder(folder)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for file in ("processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink()
    with pytest.raises(RetrievalError, match="processor"):
        load_embedder(folder)


def test_a_damaged_file_of_weights_is_named(tiny_folder):
    path = tiny_folder[0] / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RetrievalError, match=f"^{path}: found a damaged file"):
        load_embedder(tiny_folder[0])


@pytest.mark.parametrize("argument", ["dtype", "backend", "device"])
def test_an_unknown_precision_backend_or_device_is_named(tiny_folder, argument):
    with pytest.raises(RetrievalError, match=f"{argument} is 'float7'"):
        load_embedder(tiny_folder[0], **{argument: "float7"})


def test_log_mels_are_computed_on_the_device_of_the_model(processor, noise, monkeypatch):
    devices = []

    class Extractor(type(processor.feature_extractor)):
        def __call__(self, *args, device="cpu", **kwargs):
            devices.append(device)
            return super().__call__(*args, **kwargs)

    monkeypatch.setattr(processor, "feature_extractor", Extractor())
    for device in ("cpu", "cuda:1"):
        list(ModelInputs(processor, device=device).audio([noise(9_000)]))
    assert devices == ["cpu", "cuda:1"]
