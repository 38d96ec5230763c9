"""RetrievalTrainer: what it optimises, what it keeps fixed, what it scores and what it writes."""

import json
import socket

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor

from modeling_cnn10bert import CNN10BertModel
from modeling_cnn10bert.data.pairs import RecordingTransform, RetrievalCollator
from modeling_cnn10bert.data.recipes.soundscapes import SourceBank, read_manifest, render, soundscape_table
from modeling_cnn10bert.training.build import build_trainer
from modeling_cnn10bert.training.recipe import parse_recipe
from modeling_cnn10bert.training.trainer import RetrievalTrainer

SCORES = {f"{direction}{name}" for direction in ("", "a2t_") for name in ("mAP@10", "R@1", "R@5", "R@10")}


@pytest.fixture
def trainer(write_recipe, tmp_path):
    """Makes a trainer of the tiny recipe with the given fields."""

    def make(**given):
        recipe = write_recipe(tmp_path / "recipe.yaml", output_dir=str(tmp_path / "run"), **given)
        return build_trainer(*parse_recipe([str(recipe)]))[0]

    return make


def _scores(results, prefix="test_"):
    return {name: results[prefix + name] for name in SCORES}


def _as_before(scores):
    """Embeddings of another batch size differ in the last bit, which can swap the ranks of two almost equal ones."""
    return pytest.approx(scores, abs=0.01)


# ----------------------------------------------------------------------------------------------------------- draws


@pytest.mark.parametrize("num_workers", [1, 4])
def test_batches_are_augmented_alike_by_any_number_of_persistent_workers(num_workers, augmented_batches):
    for epoch, expected_epoch in zip(augmented_batches(num_workers), augmented_batches(0), strict=True):
        for batch, expected in zip(epoch, expected_epoch, strict=True):
            assert all(torch.equal(batch[name], expected[name]) for name in expected)


def test_every_epoch_draws_anew_in_persistent_workers_too(augmented_batches):
    # All 200 pairs in one batch, so that both epochs hold the same recordings and only the draws can differ.
    for num_workers in (0, 2):
        sums = []
        for (batch,) in augmented_batches(num_workers, total_train_batch_size=200):
            order = torch.argsort(batch["recording_ids"], stable=True)
            sums.append(batch["input_features"].sum(dim=(1, 2))[order])
        assert not set(sums[0].tolist()) & set(sums[1].tolist())


def test_training_sees_the_batches_of_its_epoch(trainer, augmented_batches):
    made, seen = trainer(max_steps=8, save_strategy="no"), []
    compute_loss = made.compute_loss

    def record(model, inputs, **keywords):
        seen.append(inputs["input_features"])
        return compute_loss(model, inputs, **keywords)

    made.compute_loss = record
    made.train()
    first, second = augmented_batches(0)
    for batch, expected in zip((seen[0], seen[1], seen[6], seen[7]), (*first, *second), strict=True):
        assert torch.equal(batch, expected["input_features"])
    assert seen[0].shape != seen[6].shape or not torch.equal(seen[0], seen[6])


def test_no_batch_is_read_to_learn_the_lengths(trainer):
    made = trainer(train_sampling_strategy="group_by_length")

    def transform(rows):
        raise AssertionError("the transform ran")

    made.train_dataset.set_transform(transform)
    assert len(list(made._get_train_sampler())) == 180


def test_a_run_grouped_by_length_trains_and_scores(run, tmp_path):
    results = run(tmp_path / "run", train_sampling_strategy="group_by_length", max_steps=2, save_strategy="no")
    assert results["test_num_recordings"] == 24


# ------------------------------------------------------------------------------------------------------ optimisation


def test_the_optimiser_is_the_papers_adam(trainer):
    made = trainer(learning_rate=None, num_train_epochs=None)
    optimizer = made.create_optimizer()
    assert isinstance(optimizer, torch.optim.AdamW)  # without weight decay it is Adam
    for group in optimizer.param_groups:
        assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (1e-4, (0.9, 0.999), 1e-8, 0.0)
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert trained == {id(parameter) for parameter in made.model.parameters()}
    assert made.args.max_grad_norm == 0


@pytest.mark.parametrize(
    "limit",
    [{"num_train_epochs": 50}, {"max_steps": 300}, {"num_train_epochs": 50, "gradient_accumulation_steps": 2}],
    ids=["epochs", "steps", "gradient accumulation"],
)
def test_the_learning_rate_falls_to_a_third_every_ten_epochs(limit, trainer):
    made = trainer(learning_rate=None, num_train_epochs=limit.pop("num_train_epochs", None), **limit)
    per_epoch = 6 // made.args.gradient_accumulation_steps
    optimizer = made.create_optimizer()
    schedule = made.create_scheduler(num_training_steps=50 * per_epoch)
    rates = []
    for _ in range(50 * per_epoch):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    for epoch, expected in [(0, 1e-4), (9, 1e-4), (10, 1e-4 / 3), (20, 1e-4 / 9), (39, 1e-4 / 27), (49, 1e-4 / 81)]:
        assert rates[epoch * per_epoch] == pytest.approx(expected, rel=1e-12)
    assert rates[10 * per_epoch - 1] == pytest.approx(1e-4, rel=1e-12)


def test_a_run_logs_the_learning_rates_of_its_schedule(run, tmp_path):
    run(tmp_path / "run", max_steps=6, total_train_batch_size=100, lr_decay_epochs=1, save_strategy="no", do_eval=False)
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
    rates = [entry["learning_rate"] for entry in state["log_history"] if "loss" in entry]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-3 / 3, 1e-3 / 3, 1e-3 / 9, 1e-3 / 9])  # two steps an epoch


def test_the_text_network_alone_has_the_text_learning_rate(trainer):
    made = trainer(text_learning_rate=2e-5, learnable_temperature=True)
    rates = {id(p): group["lr"] for group in made.create_optimizer().param_groups for p in group["params"]}
    for name, parameter in made.model.named_parameters():
        assert rates[id(parameter)] == (2e-5 if name.startswith("text_model.") else 1e-3), name
    assert "text_projection.dense.weight" in dict(made.model.named_parameters())


def test_accumulated_gradients_are_the_mean_of_those_of_the_batches(trainer):
    made = trainer(gradient_accumulation_steps=2)
    model = made.model.eval()
    model.train = lambda mode=True: model  # no dropout and no batch statistics
    batches = [batch for batch, _ in zip(made.get_train_dataloader(), range(2), strict=False)]
    losses, expected = [], []
    for batch in batches:
        model.zero_grad()
        loss = made.compute_loss(model, batch)
        loss.backward()
        losses.append(loss.item())
        expected.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    model.zero_grad()
    made.current_gradient_accumulation_steps = 2
    found = [made.training_step(model, batch).item() for batch in batches]
    assert sum(found) == pytest.approx(sum(losses) / 2, rel=1e-6)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, (expected[0][name] + expected[1][name]) / 2)


@pytest.mark.parametrize("tower", ["text", "audio"])
def test_a_frozen_network_stays_as_it_is_while_its_head_learns(tower, run, trained, tmp_path):
    freeze = {f"freeze_{tower}_tower": True, "model_name_or_path": str(trained)}
    run(tmp_path / "run", **freeze, max_steps=3, save_strategy="no", do_eval=False, do_predict=False)
    before, after = load_file(trained / "model.safetensors"), load_file(tmp_path / "run" / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    frozen = {name for name in before if name.startswith(f"{tower}_model.")}
    assert frozen and not changed & frozen  # the running statistics of the normalisations among them
    assert f"{tower}_projection.dense.weight" in changed
    other = "audio_model.input_norm.running_mean" if tower == "text" else "text_model.embeddings.word_embeddings.weight"
    assert other in changed


# -------------------------------------------------------------------------------------------------------- evaluation


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_evaluation_scores_the_whole_set_whatever_the_batch_size(batch_size, run, trained, tmp_path):
    expected = json.loads((trained / "all_results.json").read_text())
    found = run(
        tmp_path / "run", do_train=False, model_name_or_path=str(trained), per_device_eval_batch_size=batch_size
    )
    for prefix in ("eval_", "test_"):  # which are those of the run that trained the model, too
        assert _scores(found, prefix) == _as_before(_scores(expected, prefix))
        assert (found[prefix + "num_recordings"], found[prefix + "num_captions"]) == (24, 120)


def test_evaluation_embeds_each_recording_and_caption_once_whatever_the_batch_size(trainer):
    embeds, weights = [], None
    for batch_size in (24, 7, 1):
        made = trainer(per_device_eval_batch_size=batch_size)
        weights = weights or made.model.state_dict()
        made.model.load_state_dict(weights)
        embeds.append(made._embed(made.get_eval_dataloader()))
    assert (len(embeds[0]), sum(len(captions) for _, captions, _ in embeds[0].values())) == (24, 120)
    for other in embeds[1:]:
        assert list(other) == list(embeds[0])
        for number, (audio, captions, keys) in embeds[0].items():
            torch.testing.assert_close(other[number][0], audio, atol=1e-6, rtol=0)
            torch.testing.assert_close(other[number][1], captions, atol=1e-6, rtol=0)
            assert torch.equal(other[number][2], keys)


def test_workers_leave_the_scores_of_both_sets_as_they_are(run, trained, tmp_path):
    expected = json.loads((trained / "all_results.json").read_text())
    workers = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}
    found = run(tmp_path / "run", do_train=False, model_name_or_path=str(trained), **workers)
    assert _scores(expected, "eval_") != _as_before(_scores(expected, "test_"))
    for prefix in ("eval_", "test_"):
        assert _scores(found, prefix) == _as_before(_scores(expected, prefix))


def test_a_run_leaves_its_results_model_processor_and_curve(trained):
    results = json.loads((trained / "all_results.json").read_text())
    for name in SCORES:
        assert 0 <= results[f"test_{name}"] <= 1
        assert results[f"test_chance_{name}"] > 0
    assert {"train_loss", "eval_mAP@10"} <= results.keys()
    assert (trained / "curve.png").stat().st_size > 1000
    model, processor = AutoModel.from_pretrained(trained), AutoProcessor.from_pretrained(trained)
    assert isinstance(model, CNN10BertModel)
    assert processor.feature_extractor.hop_length == 1280


def test_a_clip_is_embedded_alike_from_the_cache_and_from_its_waveform(trained, soundscapes, fields):
    model, processor = AutoModel.from_pretrained(trained).eval(), AutoProcessor.from_pretrained(trained)
    scenes = read_manifest(soundscapes / "test.jsonl", soundscapes / "sources")[:8]
    sources = soundscapes / "sources"
    table = soundscape_table(scenes, sources, processor.feature_extractor, fields["cache_dir"])
    batch = RetrievalCollator(processor)(
        table.with_transform(RecordingTransform(table, processor.feature_extractor)).__getitems__(range(8))
    )
    waveforms = [render(scene, SourceBank(sources, 32_000)) for scene in scenes]
    direct = processor(audio=waveforms, sampling_rate=32_000, return_tensors="pt")
    with torch.inference_mode():
        cached = model.get_audio_features(batch["input_features"], batch["input_features_mask"]).pooler_output
        embeds = model.get_audio_features(**direct).pooler_output
    assert (cached - embeds).norm(dim=1).max() < 1e-3
    assert torch.pdist(embeds).min() > 1e-3


def test_the_first_so_many_recordings_are_used_for_a_quick_try(run, trainer, tmp_path):
    made = trainer(max_train_samples=11)
    assert len(made.train_dataset) == 55  # five captions each
    results = run(tmp_path / "quick", max_train_samples=11, max_eval_samples=9, max_steps=1, save_strategy="no")
    for prefix in ("eval_", "test_"):
        assert (results[prefix + "num_recordings"], results[prefix + "num_captions"]) == (9, 45)


def _text_dropouts(folder):
    model = AutoModel.from_pretrained(folder)
    config = model.config.text_config
    modules = {module.p for module in model.text_model.modules() if isinstance(module, torch.nn.Dropout)}
    return modules | {config.hidden_dropout_prob, config.attention_probs_dropout_prob}


def test_the_text_networks_dropout_is_its_own_or_the_recipes_and_is_saved(run, trained, tmp_path):
    assert _text_dropouts(trained) == {0.1}  # of the saved BERT
    short = {"max_steps": 1, "save_strategy": "no", "do_predict": False}
    run(tmp_path / "fresh", text_dropout=0.2, **short)
    assert _text_dropouts(tmp_path / "fresh") == {0.2}
    run(tmp_path / "on", model_name_or_path=str(tmp_path / "fresh"), **short)
    assert _text_dropouts(tmp_path / "on") == {0.2}
    run(tmp_path / "other", model_name_or_path=str(tmp_path / "fresh"), text_dropout=0.0, **short)
    assert _text_dropouts(tmp_path / "other") == {0.0}


def test_without_training_nothing_is_asked_of_its_augmentations(run, trained, tmp_path):
    needs = {"p_bt": 0.5, "captions_per_recording": 6}  # there are neither back-translations nor six captions
    found = run(tmp_path / "run", do_train=False, model_name_or_path=str(trained), **needs)
    assert found["test_num_recordings"] == 24


def test_the_best_step_is_what_is_kept_and_reported(run, monkeypatch, tmp_path):
    evaluate = RetrievalTrainer.evaluation_loop

    def score(self, *arguments, **keywords):
        output = evaluate(self, *arguments, **keywords)
        output.metrics["eval_mAP@10"] = {2: 0.1, 4: 0.3, 6: 0.2}[self.state.global_step]
        return output

    monkeypatch.setattr(RetrievalTrainer, "evaluation_loop", score)
    results = run(
        tmp_path / "run",
        load_best_model_at_end=True,
        eval_strategy="steps",
        eval_steps=2,
        save_steps=2,
        save_total_limit=1,
        max_steps=6,
        do_predict=False,
    )
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
    assert (state["best_global_step"], state["best_metric"]) == (4, 0.3)
    evaluations = {entry["step"]: entry for entry in state["log_history"] if "eval_mAP@10" in entry}
    assert results["eval_a2t_mAP@10"] == evaluations[4]["eval_a2t_mAP@10"] != evaluations[6]["eval_a2t_mAP@10"]
    kept = load_file(tmp_path / "run" / "checkpoint-4" / "model.safetensors")
    reported = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(kept[name], reported[name]) for name in kept)


def test_training_goes_on_from_a_saved_model_with_its_own_features(run, trained, tmp_path):
    # The recipe's own shape is another one, which a continued model must not follow.
    other = {"num_mel_bins": 24, "hop_length": 640, "n_fft": 2048, "hidden_sizes": [2, 2, 2, 2]}
    continued = {"model_name_or_path": str(trained), "text_model_name_or_path": None, **other}
    results = run(tmp_path / "run", **continued, learning_rate=1e-9, max_steps=1, save_strategy="no")
    extractor = AutoProcessor.from_pretrained(tmp_path / "run").feature_extractor
    assert (extractor.feature_size, extractor.hop_length, extractor.n_fft) == (16, 1280, 1024)
    assert AutoModel.from_pretrained(tmp_path / "run").config.audio_config.hidden_sizes == [4, 4, 8, 8]
    expected = json.loads((trained / "all_results.json").read_text())
    assert results["test_mAP@10"] == pytest.approx(expected["test_mAP@10"], abs=0.1)  # the norms took one batch in


def test_a_run_that_is_not_pushed_touches_no_network(run, tmp_path, monkeypatch):
    def refuse(*arguments, **keywords):
        raise AssertionError(f"the network was asked for {arguments}")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    run(tmp_path / "run", max_steps=1)
    assert (tmp_path / "run" / "model.safetensors").is_file()
