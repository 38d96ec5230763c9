"""Distillation: what the teachers say of a batch, how the student learns it, and how the embeddings are kept."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from modeling_cnn10bert import CNN10BertModel, CNN10BertProcessor, CNN10FeatureExtractor, contrastive_loss
from modeling_cnn10bert.data.features import decode_log_mel
from modeling_cnn10bert.data.pairs import pad_log_mels
from modeling_cnn10bert.data.recipes.soundscapes import SourceBank, read_manifest, render
from modeling_cnn10bert.errors import RecipeError
from modeling_cnn10bert.training.build import build_trainer, load_model_and_processor
from modeling_cnn10bert.training.distillation import TeacherEmbeds, distillation_loss, embed_into_file
from modeling_cnn10bert.training.recipe import parse_recipe
from modeling_cnn10bert.training.search import SearchArguments, build_search_trainer
from modeling_cnn10bert.training.search_space import TEXT_SPACE

# 12 scenes x 5 captions = 60 pairs: two batches of 30 make an epoch.
SMALL = {"max_train_samples": 12, "max_eval_samples": 3, "renderings": 1}
TEMPERATURE = 0.05  # the default


def _loss_by_hand(student, teachers):
    """The loss of cosines [A, C] of the student and of each teacher, in float64, row by row and column by column."""
    student, correspondences = student / TEMPERATURE, np.mean(teachers, axis=0) / TEMPERATURE
    directions = []
    for logits, targets in ((student, correspondences), (student.T, correspondences.T)):
        rows = []
        for of_student, of_teachers in zip(logits, targets, strict=True):
            q = [math.exp(value) for value in of_student]
            p = [math.exp(value) for value in of_teachers]
            rows.append(-sum(b / sum(p) * math.log(a / sum(q)) for a, b in zip(q, p, strict=True)))
        directions.append(sum(rows) / len(rows))
    return sum(directions) / 2


def _unit(generator, *shape):
    vectors = generator.standard_normal(shape)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


# ------------------------------------------------------------------------------------------------------------- the loss


def test_the_loss_is_the_cross_entropy_with_both_softmaxes():
    student = np.array([[0.9, 0.2, -0.1], [0.3, 0.8, 0.7]])
    one, two = np.array([[0.8, 0.1, 0.0], [0.2, 0.9, 0.8]]), np.array([[0.6, 0.3, 0.2], [0.0, 0.7, 0.9]])
    expected = _loss_by_hand(student, [one, two])
    found = distillation_loss(torch.tensor(student) / TEMPERATURE, torch.tensor(one + two) / 2 / TEMPERATURE)
    assert found.item() == pytest.approx(expected, rel=1e-12)
    assert abs(expected - _loss_by_hand(student, [one])) > 0.01


def test_teachers_that_are_sure_give_the_contrastive_loss():
    logits = 10 * torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sure = torch.where(torch.eye(6, dtype=torch.bool), 0.0, -torch.inf).double()
    torch.testing.assert_close(distillation_loss(logits, sure), contrastive_loss(logits))


def test_a_student_that_agrees_with_its_teachers_has_no_gradient():
    correspondences = 10 * torch.randn(4, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits = correspondences.clone().requires_grad_()
    distillation_loss(logits, correspondences).backward()
    assert logits.grad.abs().max() < 1e-15


def test_joined_embeddings_have_the_mean_similarity_of_teachers_of_any_width():
    draws = np.random.default_rng(0)
    captions = [["rain", "a dog"], ["a dog", "wind"]]  # different ones, sorted: a dog, rain, wind
    embeds = [(_unit(draws, 2, width), _unit(draws, 3, width)) for width in (5, 8)]
    joined = TeacherEmbeds(captions, embeds)
    found = joined.of_recordings([1, 0]) @ joined.of_captions([0, 1, 2, 3]).T
    expected = np.mean([audio[[1, 0]] @ text[[1, 0, 0, 2]].T for audio, text in embeds], axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-6)


# -------------------------------------------------------------------------------------------------------- in a training


@pytest.fixture(scope="module")
def clips(fields):
    """The waveforms of the first twelve training scenes, and their captions."""
    scenes = read_manifest(Path(fields["manifests"]) / "train.jsonl", fields["sources"])[:12]
    bank = SourceBank(fields["sources"], 32_000)
    return [render(scene, bank) for scene in scenes], [scene.captions for scene in scenes]


def _spread(model, processor, clips):
    """Center the embeddings of a random model, which are almost equal, so that its similarities differ."""
    waveforms, captions = clips
    inputs = processor(text=[text for texts in captions for text in texts], return_tensors="pt")
    inputs |= pad_log_mels(
        [processor.feature_extractor.log_mel(wave) for wave in waveforms], processor.feature_extractor
    )
    for head in (model.audio_projection, model.text_projection):
        layer, outputs = head.out, []
        hook = layer.register_forward_hook(lambda _, __, output, outputs=outputs: outputs.append(output.detach()))
        model(**inputs)
        hook.remove()
        layer.bias.data -= outputs[0].mean(dim=0)
    return model


@pytest.fixture(scope="module")
def teachers(tmp_path_factory, write_recipe, tiny_model, clips):
    """The folders of two teachers: one with the front end of the student, and one with finer log-mels."""
    folder = tmp_path_factory.mktemp("teachers")
    recipe = write_recipe(folder / "recipe.yaml", output_dir=str(folder / "run"))
    _, processor = load_model_and_processor(parse_recipe([str(recipe)])[0])
    finer = CNN10FeatureExtractor(feature_size=24, hop_length=640)
    for name, extractor in (("alike", processor.feature_extractor), ("finer", finer)):
        model = tiny_model(
            len(name), audio={"num_mel_bins": extractor.feature_size}, text={"vocab_size": len(processor.tokenizer)}
        )
        processor = CNN10BertProcessor(extractor, processor.tokenizer)
        _spread(model, processor, clips).save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
    return [str(folder / "alike"), str(folder / "finer")]


@pytest.fixture
def trainer(write_recipe, tmp_path):
    """Makes a trainer and the recordings tables of the tiny recipe with the given fields."""

    def make(**given):
        recipe = write_recipe(tmp_path / "recipe.yaml", output_dir=str(tmp_path / "run"), **{**SMALL, **given})
        return build_trainer(*parse_recipe([str(recipe)]))

    return make


def _similarities(teacher, log_mels, captions):
    """Cosines [A, C] of unpadded log-mels and of captions by a saved model."""
    model, processor = CNN10BertModel.from_pretrained(teacher).eval(), CNN10BertProcessor.from_pretrained(teacher)
    with torch.no_grad():
        audio = [model.get_audio_features(log_mel[None]).pooler_output for log_mel in log_mels]
        text = model.get_text_features(**processor(text=captions, return_tensors="pt")).pooler_output
    return (torch.cat(audio) @ text.T).double().numpy()


@pytest.mark.parametrize("given", [{}, {"captions_per_recording": 2}, {"lora_rank": 2}], ids=str)
def test_targets_are_those_of_the_renderings_and_captions_before_augmentation(given, trainer, teachers):
    made, tables = trainer(teachers=teachers[:1], renderings=2, model_name_or_path=teachers[0], **given)
    together = given.get("captions_per_recording", 1)
    order = list(made._get_train_sampler())[:30]
    pairs = made.train_dataset.with_format(None)[order]
    rows = pairs["recording"][::together]
    assert len({row // 2 for row in rows}) < len(set(rows))  # two renderings of a scene are in the batch
    log_mels = [decode_log_mel(encoded, 16) for encoded in tables.train[rows]["log_mel"]]
    expected = _similarities(teachers[0], log_mels, pairs["caption"])
    assert expected.std() > 0.1

    batch = made.data_collator(made.train_dataset.__getitems__(order))
    loss, outputs = made.compute_loss(made.model, batch, return_outputs=True)
    student = (outputs.audio_embeds @ outputs.text_embeds.T).detach().double().numpy()
    assert student.shape == expected.shape == (30 // together, 30)
    assert loss.item() == pytest.approx(_loss_by_hand(student, [expected]), rel=1e-4)
    ids = [torch.tensor([row // 2 for row in pairs["recording"][::step]]) for step in (together, 1)]
    assert abs(loss.item() - contrastive_loss(torch.tensor(student) / TEMPERATURE, *ids).item()) > 0.01


def test_a_teacher_hears_log_mels_of_its_own_feature_extractor(trainer, teachers, clips):
    made, _ = trainer(teachers=teachers)
    batch = made.data_collator(made.train_dataset.__getitems__([0, 5, 11]))
    found = (batch["teacher_audio_embeds"] @ batch["teacher_text_embeds"].T).double().numpy()
    waveforms, captions = clips
    captions = [captions[0][0], captions[1][0], captions[2][1]]
    expected = []
    for teacher in teachers:
        log_mel = CNN10BertProcessor.from_pretrained(teacher).feature_extractor.log_mel
        expected.append(_similarities(teacher, [log_mel(waveform) for waveform in waveforms[:3]], captions))
    assert np.abs(expected[0] - expected[1]).max() > 0.1
    np.testing.assert_allclose(found, np.mean(expected, axis=0), atol=1e-3)


def test_a_run_with_teachers_resumes_exactly_and_its_card_names_them(run, teachers, tmp_path):
    given = {**SMALL, "teachers": teachers, "num_train_epochs": 2, "save_steps": 2, "do_predict": False}
    run(tmp_path / "whole", **given)
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "resumed" / "checkpoint-2")
    run(tmp_path / "resumed", "--resume_from_checkpoint", "true", **given)
    weights, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("resumed", "whole"))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)

    run(tmp_path / "without", **{**given, "teachers": None})
    weights = load_file(tmp_path / "without" / "model.safetensors")
    assert not torch.equal(weights["audio_projection.dense.weight"], expected["audio_projection.dense.weight"])
    assert "| teachers | `alike`, `finer`: " in (tmp_path / "whole" / "README.md").read_text()
    assert "teachers" not in (tmp_path / "without" / "README.md").read_text()


def test_trials_of_a_search_learn_from_the_teachers(write_recipe, tmp_path, teachers):
    recipe = write_recipe(
        tmp_path / "recipe.yaml", output_dir=str(tmp_path / "run"), eval_strategy="epoch", **SMALL, teachers=teachers
    )
    searched = build_search_trainer(*parse_recipe([str(recipe)]), SearchArguments(fixed=list(TEXT_SPACE)))
    pairs = searched.pairs_of({"g_max": 1})
    assert pairs[0]["teacher_audio_embeds"].shape == (24,)


def test_equal_captions_need_no_field_with_teachers(write_recipe, tmp_path):
    given = {"teachers": ["runs/a"], "equal_captions_are_positives": True}
    with pytest.raises(RecipeError, match="equal_captions_are_positives must be left out with teachers"):
        parse_recipe([str(write_recipe(tmp_path / "recipe.yaml", output_dir=str(tmp_path / "run"), **given))])


@pytest.mark.parametrize("kind", ["missing", "text", "audio"])
def test_a_teacher_that_is_no_retrieval_model_is_a_clear_error(kind, trainer, teachers, text_folder, tmp_path):
    folder = {"missing": tmp_path / "nothing", "text": text_folder, "audio": tmp_path / "audio"}[kind]
    CNN10BertModel.from_pretrained(teachers[0]).audio_model.save_pretrained(tmp_path / "audio")
    with pytest.raises(
        RecipeError, match="^field teachers: found .*, expected .* of a trained CNN10BertModel"
    ) as error:
        trainer(teachers=[teachers[0], str(folder)])
    assert str(folder) in str(error.value)


# ------------------------------------------------------------------------------------------------ the cached embeddings


ROWS = np.random.default_rng(0).standard_normal((10, 3)).astype(np.float16)


def _embed(path, stop=None):
    """Embed ten rows in batches of three, until the batch of row `stop`; returns them and the rows of each batch."""
    batches = []

    def embed(rows):
        if stop in rows:
            raise KeyboardInterrupt
        batches.append(list(rows))
        return ROWS[rows]

    return embed_into_file(path, ROWS.shape, embed, 3, "Embedding"), batches


def test_embeddings_are_computed_once(tmp_path):
    embeds, batches = _embed(tmp_path / "embeds.bin")
    assert batches == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    again, batches = _embed(tmp_path / "embeds.bin")
    assert batches == []
    assert np.array_equal(embeds, ROWS)
    assert np.array_equal(again, ROWS)


@pytest.mark.parametrize("cut", [0, 1], ids=["after a batch", "within a batch"])
def test_an_interrupted_computation_is_continued(cut, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        _embed(tmp_path / "embeds.bin", stop=7)
    assert not (tmp_path / "embeds.bin").exists()
    unfinished = tmp_path / "embeds.unfinished"
    unfinished.write_bytes(unfinished.read_bytes()[: -cut or None])
    embeds, batches = _embed(tmp_path / "embeds.bin")
    assert batches == ([[3, 4, 5]] if cut else []) + [[6, 7, 8], [9]]
    assert np.array_equal(embeds, ROWS)
    assert not unfinished.exists()


def test_a_run_embeds_nothing_that_an_earlier_one_embedded(trainer, teachers, tmp_path, monkeypatch):
    shapes = []

    def embed(path, shape, embed, *options):
        def counted(rows):
            shapes.append((path.name.split("-")[0], len(rows)))
            return embed(rows)

        return embed_into_file(path, shape, counted, *options)

    monkeypatch.setattr("modeling_cnn10bert.training.distillation.embed_into_file", embed)
    cache = str(tmp_path / "cache")
    trainer(teachers=teachers[:1], cache_dir=cache)
    assert [kind for kind, _ in shapes] == ["recordings", "captions"]
    captions = shapes.pop()[1]
    shapes.clear()
    trainer(teachers=teachers[:1], cache_dir=cache)
    assert shapes == []
    trainer(teachers=teachers[:1], cache_dir=cache, renderings=2)  # other recordings, the same captions
    assert shapes == [("recordings", 24)]
    weights = CNN10BertModel.from_pretrained(teachers[0])
    weights.audio_projection.dense.bias.data += 1
    shutil.copytree(teachers[0], tmp_path / "alike")
    weights.save_pretrained(tmp_path / "alike")
    trainer(teachers=[str(tmp_path / "alike")], cache_dir=cache)  # another model of the same name
    assert shapes == [("recordings", 24), ("recordings", 12), ("captions", captions)]
