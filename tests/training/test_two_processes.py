"""Two real processes train as one does on the joined batch."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from modeling_cnn10bert import contrastive_loss
from modeling_cnn10bert.training.distillation import distillation_loss

CASES = {
    "a fixed temperature": {},
    "a learned temperature": {"learnable_temperature": True},
    "a recording in both processes": {"recording_ids": [0, 1, 2, 2, 0, 3, 4, 2]},
    "a caption in both processes": {
        "recording_ids": [0, 1, 2, 2, 0, 3, 4, 5],
        "caption_keys": [5, 6, 7, 8, 9, 5, 6, 4],
    },
    "teachers": {"teachers": True},
}


# Pairs 0 and 5 have the same words, and so do 1 and 6: each is also a caption of the other's recording, of which
# recording 0 is in the batch twice.
ALSO_RIGHT = [(0, 5), (4, 5), (5, 0), (1, 6), (6, 1)]  # (audio, caption)


def _save_case(
    folder, make_model, learnable_temperature=False, recording_ids=tuple(range(8)), caption_keys=None, teachers=False
):
    """A tiny model and a batch of eight rows; returns the loss and gradients of one process."""
    model = make_model(seed=1, audio={"num_mel_bins": 16}, learnable_temperature=learnable_temperature)
    model.save_pretrained(folder / "model")
    mask = (torch.arange(48) < torch.tensor([48, 40, 33, 48, 20, 48, 16, 31])[:, None]).int()
    inputs = {
        "input_features": (-40 + 15 * torch.randn(8, 48, 16)) * mask[:, :, None],
        "input_features_mask": mask,
        "input_ids": torch.randint(5, 50, (8, 9)),
        "attention_mask": (torch.arange(9) < torch.randint(3, 10, (8, 1))).int(),
    }
    ids = torch.tensor(recording_ids)
    keys = {} if caption_keys is None else {"caption_keys": torch.tensor(caption_keys)}
    names = ("teacher_audio_embeds", "teacher_text_embeds") if teachers else ()
    embeds = {name: F.normalize(torch.randn(8, 5), dim=1) for name in names}
    torch.save({**inputs, "recording_ids": ids, "text_recording_ids": ids, **keys, **embeds}, folder / "inputs.pt")
    positives = ids[:, None] == ids
    for pair in ALSO_RIGHT if keys else ():
        positives[pair] = True
    logits_per_audio = model(**inputs).logits_per_audio
    loss = contrastive_loss(logits_per_audio, positives=positives)
    if teachers:
        loss = distillation_loss(logits_per_audio, embeds[names[0]] @ embeds[names[1]].T / 0.05)
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture(scope="module")
def computed(tmp_path_factory, start_two_processes, write_recipe, uninterrupted, tiny_model):
    """What one process computed for each case, and what each of two did; `uninterrupted` filled the feature cache."""
    folder = tmp_path_factory.mktemp("two-processes")
    alone = {}
    for name, options in CASES.items():
        (folder / f"case-{name}").mkdir()
        alone[name] = _save_case(folder / f"case-{name}", tiny_model, **options)
    recipe = write_recipe(folder / "recipe.yaml", output_dir=str(folder / "run"))
    script = Path(__file__).with_name("two_processes.py")
    process = start_two_processes(folder, recipe, script=script)
    assert process.wait(timeout=400) == 0, process.log.read_text()[-3000:]
    ranks = [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]
    assert [rank["world_size"] for rank in ranks] == [2, 2]
    return alone, ranks


@pytest.mark.parametrize("chunk", [None, 3], ids=["whole", "in chunks"])
@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_are_those_of_one_process_on_the_joined_batch(case, chunk, computed):
    alone, ranks = computed
    loss, expected = alone[case]
    assert ("logit_scale" in expected) == (case == "a learned temperature")
    overall = torch.cat([gradient.flatten() for gradient in expected.values()]).norm()
    for rank in ranks:
        found_loss, found = rank["gradients"][f"case-{case}", chunk]
        assert found_loss.item() == pytest.approx(loss.item(), rel=1e-5)
        assert found.keys() == expected.keys()
        error = torch.cat([(found[name] - expected[name]).flatten() for name in expected]).norm()
        assert error < 1e-5 * overall
        for name, gradient in expected.items():  # some are zero but for rounding, such as that of a key's bias
            assert (found[name] - gradient).norm() < 1e-5 * max(gradient.norm(), 1e-2 * overall), name


def _tokens(batches):
    """The tokens of each caption, without padding."""
    return [
        row[mask.bool()].tolist()
        for batch in batches
        for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]


def test_two_processes_share_the_augmented_batch_of_one(computed, augmented_batches):
    _, ranks = computed
    alone = augmented_batches(num_workers=0)
    for epoch in range(2):
        for step in range(2):
            halves = [rank["batches"][epoch][step] for rank in ranks]
            whole = alone[epoch][step]
            assert [len(half["recording_ids"]) for half in halves] == [15, 15]
            for name in ("recording_ids", "text_recording_ids"):
                assert torch.equal(torch.cat([half[name] for half in halves]), whole[name])
            rows = [
                row for half in halves for row in zip(half["input_features"], half["input_features_mask"], strict=True)
            ]
            for (row, mask), expected, expected_mask in zip(
                rows, whole["input_features"], whole["input_features_mask"], strict=True
            ):
                assert torch.equal(row[mask.bool()], expected[expected_mask.bool()])
            assert _tokens(halves) == _tokens([whole])


def test_a_batch_that_two_processes_cannot_share_is_a_clear_error(computed):
    for rank in computed[1]:
        assert "total_train_batch_size is 31, which 2 processes cannot share equally" in rank["error"]


def test_train_retrieval_runs_in_two_processes_and_scores_as_one(
    start_two_processes, write_recipe, tmp_path, run, trained
):
    folder = tmp_path / "two"
    # Five recordings a process: 24 leave a last batch of four, which accelerate fills up with repeated ones.
    limits = {"max_steps": 3, "save_steps": 2, "per_device_eval_batch_size": 5, "model_name_or_path": str(trained)}
    recipe = write_recipe(tmp_path / "two.yaml", output_dir=str(folder), **limits)
    process = start_two_processes(recipe)
    assert process.wait(timeout=400) == 0, process.log.read_text()[-3000:]
    log = process.log.read_text()
    assert log.count("***** test metrics *****") == 1

    results = json.loads((folder / "all_results.json").read_text())
    assert (results["test_num_recordings"], results["test_num_captions"]) == (24, 120)
    assert {path.name for path in folder.glob("checkpoint-2/rng_state*")} == {"rng_state_0.pth", "rng_state_1.pth"}
    assert json.loads((folder / "trainer_state.json").read_text())["train_batch_size"] == 15
    before, after = load_file(trained / "model.safetensors"), load_file(folder / "model.safetensors")
    assert all(torch.isfinite(weight).all() for weight in after.values())
    assert not torch.equal(before["audio_projection.dense.weight"], after["audio_projection.dense.weight"])

    again = run(tmp_path / "one", do_train=False, model_name_or_path=str(folder))
    metrics = [name for name in results if name.startswith("test_") and ("R@" in name or "mAP" in name)]
    assert len(metrics) == 16
    assert {name: again[name] for name in metrics} == {name: results[name] for name in metrics}
