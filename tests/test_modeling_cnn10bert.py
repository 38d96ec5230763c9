"""The retrieval model, in the manner of transformers' own tests of every model."""

import copy
import inspect
import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel, BertConfig, BertModel

from modeling_cnn10bert import CNN10BertConfig, CNN10BertModel, CNN10Config, CNN10ForAudioClassification, CNN10Model

LENGTHS = [37, 53, 20]


@pytest.fixture
def batch(log_mels):
    """Three recordings and captions of different lengths."""
    features, mask, _ = log_mels(LENGTHS)
    generator = torch.Generator().manual_seed(0)
    attention_mask = torch.tensor([[1] * 9, [1] * 5 + [0] * 4, [1] * 7 + [0] * 2])
    input_ids = torch.randint(5, 64, (3, 9), generator=generator) * attention_mask
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "input_features": features,
        "input_features_mask": mask,
    }


def embeds(outputs):
    return torch.cat([outputs.audio_embeds, outputs.text_embeds])


def test_the_sizes_are_the_papers():
    with torch.device("meta"):
        model = CNN10BertModel(CNN10BertConfig())

    def size(*modules):
        return sum(parameter.numel() for module in modules for parameter in module.parameters())

    assert size(model.audio_model, model.audio_projection) == 7_835_072  # section 6.2, with the input normalisation
    assert size(model.text_model, model.text_projection) == 112_564_736  # section 6.3, BERT without its pooler
    assert size(model) == 7_835_072 + 112_564_736  # the temperature is fixed


def test_similarities_are_cosines_over_the_temperature(tiny_model, batch):
    outputs = tiny_model(temperature=0.1)(**batch)
    torch.testing.assert_close(embeds(outputs).norm(dim=-1), torch.ones(6))
    expected = nn.functional.cosine_similarity(outputs.audio_embeds[:, None], outputs.text_embeds[None], dim=-1) / 0.1
    torch.testing.assert_close(outputs.logits_per_audio, expected)
    assert torch.equal(outputs.logits_per_text, outputs.logits_per_audio.T)


def test_audios_and_captions_may_differ_in_number(tiny_model, batch):
    model = tiny_model()
    full = model(**batch)
    part = model(**{**batch, "input_ids": batch["input_ids"][:2], "attention_mask": batch["attention_mask"][:2]})
    assert part.logits_per_audio.shape == (3, 2)
    torch.testing.assert_close(part.logits_per_audio, full.logits_per_audio[:, :2])
    with pytest.raises(ValueError, match=r"logits_per_audio is \(3, 2\).*3 audios and 3 captions"):
        model(**{**batch, "input_ids": batch["input_ids"][:2], "attention_mask": None}, return_loss=True)


def test_forward_and_the_two_towers_agree(tiny_model, batch):
    model = tiny_model()
    outputs = model(**batch)
    audio = model.get_audio_features(batch["input_features"], batch["input_features_mask"])
    text = model.get_text_features(batch["input_ids"], batch["attention_mask"])
    assert torch.equal(audio.pooler_output, outputs.audio_embeds)
    assert torch.equal(text.pooler_output, outputs.text_embeds)
    assert torch.equal(model.similarity(audio.pooler_output, text.pooler_output), outputs.logits_per_audio)
    assert audio.last_hidden_state.shape == (3, 3, 10)
    assert text.last_hidden_state.shape == (3, 9, 16)


def test_one_modality_alone_gives_its_embeddings(tiny_model, batch):
    model = tiny_model()
    both = model(**batch)
    audio = model(input_features=batch["input_features"], input_features_mask=batch["input_features_mask"])
    text = model(batch["input_ids"], attention_mask=batch["attention_mask"])
    assert torch.equal(audio.audio_embeds, both.audio_embeds)
    assert torch.equal(text.text_embeds, both.text_embeds)
    assert torch.equal(text[0], both.text_embeds)  # as a feature-extraction pipeline takes it
    assert audio.text_embeds is audio.logits_per_audio is text.audio_embeds is text.logits_per_text is None


@pytest.mark.parametrize(
    ("names", "return_loss", "message"),
    [
        ([], None, "Expected input_ids or input_features, found neither"),
        (["input_ids"], True, "Expected input_ids and input_features for the loss, found input_ids"),
        (["input_features"], True, "Expected input_ids and input_features for the loss, found input_features"),
    ],
)
def test_a_missing_modality_is_named(tiny_model, batch, names, return_loss, message):
    with pytest.raises(ValueError, match=message):
        tiny_model()(**{name: batch[name] for name in names}, return_loss=return_loss)


def test_every_hook_fires_in_evaluation(tiny_model, batch):
    model = tiny_model()
    modules = [module for module in model.modules() if isinstance(module, (torch.nn.Conv2d, torch.nn.BatchNorm2d))]
    called = []
    for module in modules:
        module.register_forward_hook(lambda module, given, found: called.append(module))
    expected = tiny_model()(**batch).audio_embeds
    torch.testing.assert_close(model(**batch).audio_embeds, expected, atol=1e-5, rtol=0)
    assert len(called) == len(set(called)) == len(modules)


@torch.no_grad()
def test_an_adapter_on_a_convolution_has_its_effect(tiny_model, batch):
    class Doubled(torch.nn.Conv2d):
        def forward(self, hidden_states):
            return 2 * super().forward(hidden_states)

    model = tiny_model()
    expected = model(**batch).audio_embeds
    model.audio_model.blocks[0].conv1.__class__ = Doubled
    assert not torch.allclose(model(**batch).audio_embeds, expected, atol=1e-3)


def test_the_loss_knows_the_recordings(tiny_model, batch):
    model = tiny_model()
    logits = model(**batch).logits_per_audio.tolist()

    def one_direction(table):
        # Rows 0 and 2 are one recording.
        logs = [[value - math.log(sum(map(math.exp, row))) for value in row] for row in table]
        return -((logs[0][0] + logs[0][2]) / 2 + logs[1][1] + (logs[2][0] + logs[2][2]) / 2) / 3

    expected = (one_direction(logits) + one_direction([list(column) for column in zip(*logits, strict=True)])) / 2
    loss = model(**batch, recording_ids=torch.tensor([6, 2, 6]), return_loss=True).loss
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert model(**batch, return_loss=True).loss.item() != pytest.approx(expected, rel=1e-3)
    assert model(**batch).loss is None


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_the_text_is_pooled_over_its_tokens(tiny_model, batch, pooling):
    model = tiny_model(text_pooling=pooling)
    outputs = model.get_text_features(batch["input_ids"], batch["attention_mask"])
    tokens = outputs.last_hidden_state
    if pooling == "cls":
        pooled = tokens[:, 0]
    else:
        pooled = torch.stack([row[:length].mean(dim=0) for row, length in zip(tokens, (9, 5, 7), strict=True)])
    torch.testing.assert_close(outputs.pooler_output, model.text_projection(pooled))
    alone = [model.get_text_features(batch["input_ids"][i : i + 1, :n]) for i, n in enumerate((9, 5, 7))]
    torch.testing.assert_close(torch.cat([one.pooler_output for one in alone]), outputs.pooler_output)


def test_outputs_are_deterministic(tiny_model, batch):
    model = tiny_model()
    assert torch.equal(embeds(model(**batch)), embeds(model(**batch)))


def test_batching_changes_nothing(tiny_model, batch):
    model = tiny_model()
    together = model(**batch)
    for row in range(3):
        alone = model(**{name: value[row : row + 1] for name, value in batch.items()})
        torch.testing.assert_close(alone.audio_embeds[0], together.audio_embeds[row])
        torch.testing.assert_close(alone.text_embeds[0], together.text_embeds[row])


def test_arguments_come_in_the_usual_order():
    assert list(inspect.signature(CNN10BertModel.forward).parameters)[1:7] == [
        "input_ids",
        "input_features",
        "attention_mask",
        "input_features_mask",
        "recording_ids",
        "return_loss",
    ]


@pytest.mark.parametrize("by", ["argument", "configuration"])
def test_tuple_and_dict_outputs_agree(tiny_model, batch, by):
    model = tiny_model()
    options = {"output_hidden_states": True, "return_loss": True}
    expected = model(**batch, **options).to_tuple()
    if by == "configuration":
        for config in (model.config, model.config.audio_config, model.config.text_config):
            config.return_dict = False
        found = model(**batch, **options)
    else:
        found = model(**batch, **options, return_dict=False)

    def assert_equal(left, right):
        assert type(left) is type(right)
        if isinstance(left, tuple):
            assert len(left) == len(right)
            for pair in zip(left, right, strict=True):
                assert_equal(*pair)
        else:
            assert torch.equal(left, right)

    assert_equal(found, expected)
    assert len(found) == 7


def test_hidden_states_of_both_towers_come_on_request(tiny_model, batch):
    outputs = tiny_model()(**batch, output_hidden_states=True)
    assert len(outputs.audio_model_output.hidden_states) == 1 + 4
    assert len(outputs.text_model_output.hidden_states) == 1 + 2
    assert tiny_model()(**batch).audio_model_output.hidden_states is None


def test_every_tensor_is_a_parameter_or_a_persistent_buffer(tiny_model):
    model = tiny_model(learnable_temperature=True)
    for name, module in model.named_modules():
        assert not [key for key, value in vars(module).items() if isinstance(value, torch.Tensor)], name
    # Those that are not saved are recomputed by BERT.
    unsaved = {name for name, _ in model.named_buffers()} - model.state_dict().keys()
    assert all(name.startswith("text_model.embeddings.") for name in unsaved)


def assert_freshly_initialised(name, tensor, model):
    """PANNs' rules for the audio network, BERT's for the text network, PyTorch's for the heads."""
    where, last = name.rsplit(".", 1) if "." in name else ("", name)
    module = model.get_submodule(where)
    assert torch.isfinite(tensor).all(), name
    if name == "logit_scale":
        assert tensor.item() == pytest.approx(math.log(1 / 0.05))
    elif last in ("running_mean", "num_batches_tracked") or (isinstance(module, nn.LayerNorm) and last == "bias"):
        assert not tensor.any(), name
    elif last == "running_var" or (isinstance(module, (nn.LayerNorm, nn.BatchNorm2d)) and last == "weight"):
        assert (tensor == 1).all(), name
    elif "projection" in name:
        bound = 1 / math.sqrt(module.in_features)  # uniform, as nn.Linear's own
        assert bound / 2 < tensor.abs().max() <= bound, name
    elif last == "bias":
        assert not tensor.any(), name
    elif isinstance(module, nn.Conv2d):
        fan_in, fan_out = 9 * module.in_channels, 9 * module.out_channels
        bound = math.sqrt(6 / (fan_in + fan_out))  # Glorot and Bengio (2010), equation 16
        assert 0.8 * bound < tensor.abs().max() <= bound, name
    else:
        assert 0.01 < tensor.std() < 0.03, name  # BERT's initializer_range is 0.02


def test_a_new_model_is_initialised_sensibly(tiny_config):
    model = CNN10BertModel(tiny_config(learnable_temperature=True))
    for name, tensor in model.state_dict().items():
        assert_freshly_initialised(name, tensor, model)
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            assert not module.weight[module.padding_idx].any()


def test_tensors_that_a_checkpoint_lacks_are_initialised_sensibly(tiny_model, tmp_path):
    model = tiny_model(learnable_temperature=True)
    with torch.no_grad():  # nothing as it would be after initialisation
        for tensor in model.state_dict().values():
            tensor.fill_(7)
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    names = sorted(tensors)
    for kept in (names[::2], names[1::2]):
        save_file({name: tensors[name] for name in kept}, tmp_path / "model.safetensors", metadata={"format": "pt"})
        reloaded = CNN10BertModel.from_pretrained(tmp_path)
        for name, tensor in reloaded.state_dict().items():
            if name in kept:
                assert (tensor == 7).all(), name
            else:
                assert_freshly_initialised(name, tensor, reloaded)


def test_a_fixed_temperature_can_become_learnable_on_loading(tiny_model, tmp_path):
    tiny_model(temperature=0.2).save_pretrained(tmp_path)
    model = CNN10BertModel.from_pretrained(tmp_path, learnable_temperature=True)
    assert model.logit_scale.item() == pytest.approx(math.log(5))


@pytest.mark.parametrize("fields", [{}, {"learnable_temperature": True, "temperature": 0.02, "text_pooling": "mean"}])
def test_a_reloaded_model_is_equal_to_the_bit(tiny_model, batch, tmp_path, fields):
    model = tiny_model(**fields)
    if fields:
        model.logit_scale.data.fill_(3.3)  # as if learned
    expected = model(**batch)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    assert not list(tmp_path.glob("*.bin")) + list(tmp_path.glob("*.pt"))
    for reloaded in (CNN10BertModel.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        assert type(reloaded) is CNN10BertModel
        assert not reloaded.training
        assert torch.equal(reloaded(**batch).logits_per_audio, expected.logits_per_audio)
        assert torch.equal(embeds(reloaded(**batch)), embeds(expected))
        for name, tensor in model.state_dict().items():
            assert torch.equal(reloaded.state_dict()[name], tensor), name


def test_a_learned_temperature_moves_and_stays_above_a_hundredth(tiny_model, batch):
    model = tiny_model(learnable_temperature=True)
    fixed = tiny_model()(**batch).logits_per_audio
    torch.testing.assert_close(model(**batch).logits_per_audio, fixed)
    model(**batch, return_loss=True).loss.backward()
    assert model.logit_scale.grad.abs() > 0
    model.logit_scale.data.fill_(9.0)
    torch.testing.assert_close(model(**batch).logits_per_audio, fixed * 0.05 / 0.01, rtol=1e-4, atol=1e-4)
    assert "logit_scale" not in dict(tiny_model().named_parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_loading_keeps_the_input_norm_float32(tiny_model, batch, tmp_path, dtype):
    model = tiny_model()
    expected = model(**batch)
    model.save_pretrained(tmp_path)
    reloaded = CNN10BertModel.from_pretrained(tmp_path, dtype=dtype)
    for name, tensor in reloaded.state_dict().items():
        if tensor.is_floating_point():
            assert tensor.dtype == (torch.float32 if "input_norm" in name else dtype), name
    outputs = reloaded(**batch)
    assert outputs.audio_embeds.dtype == outputs.logits_per_audio.dtype == torch.float32
    torch.testing.assert_close(embeds(outputs), embeds(expected), rtol=0, atol=0.03)
    # Pipelines hand over features in the model's precision.
    cast = reloaded(**{**batch, "input_features": batch["input_features"].to(dtype)})
    torch.testing.assert_close(embeds(cast), embeds(expected), rtol=0, atol=0.03)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_cast_to_half_precision_runs_and_trains(tiny_model, batch, dtype):
    model = tiny_model()
    expected = embeds(model(**batch))
    model = model.to(dtype)
    torch.testing.assert_close(embeds(model(**batch)), expected, rtol=0, atol=0.03)
    loss = model.train()(**batch, return_loss=True).loss
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)


def test_autocast_stays_close_to_float32(tiny_model, batch):
    model = tiny_model()
    expected = model(**batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(**batch)
        loss = copy.deepcopy(model).train()(**batch, return_loss=True).loss
    assert outputs.logits_per_audio.dtype == loss.dtype == torch.float32
    torch.testing.assert_close(embeds(outputs), embeds(expected), rtol=0, atol=0.03)
    scores = outputs.audio_embeds @ outputs.text_embeds.T / 0.05
    torch.testing.assert_close(outputs.logits_per_audio, scores)  # the product itself is not in bfloat16


def test_attention_implementations_agree(tiny_model, batch, tmp_path):
    tiny_model().save_pretrained(tmp_path)
    outputs = {}
    for name in ("eager", "sdpa"):
        model = CNN10BertModel.from_pretrained(tmp_path, attn_implementation=name)
        assert model.text_model.config._attn_implementation == name
        outputs[name] = embeds(model(**batch))
    torch.testing.assert_close(outputs["eager"], outputs["sdpa"])


def without_dropout(tiny_model, **fields):
    return tiny_model(text={"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}, **fields)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing_changes_nothing(tiny_model, batch, use_reentrant):
    plain, checkpointed = without_dropout(tiny_model), without_dropout(tiny_model)
    checkpointed.activation_checkpointing_enable({"use_reentrant": use_reentrant})
    losses = []
    for model in (plain, checkpointed):
        loss = model.train()(**batch, recording_ids=torch.tensor([0, 1, 0]), return_loss=True).loss
        loss.backward()
        losses.append(loss.detach())
    assert any(getattr(module, "gradient_checkpointing", False) for module in checkpointed.audio_model.modules())
    assert any(getattr(module, "gradient_checkpointing", False) for module in checkpointed.text_model.modules())
    torch.testing.assert_close(*losses, rtol=0, atol=0)
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(checkpointed.get_parameter(name).grad, parameter.grad, msg=name)
    for name, buffer in plain.named_buffers():
        assert torch.equal(checkpointed.get_buffer(name), buffer), name
        if name.endswith("num_batches_tracked"):
            assert buffer == 1


def test_a_compiled_model_agrees(tiny_model, batch):
    # The graphs are in question: test_padding.py compiles the audio network to machine code.
    model = tiny_model()
    compiled = torch.compile(model, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(embeds(compiled(**batch)), embeds(model(**batch)))


def test_a_frozen_batch_normalization_keeps_its_statistics(tiny_model, batch):
    model = tiny_model()
    frozen, trained = model.audio_model.blocks[0].norm1, model.audio_model.blocks[0].norm2
    frozen.requires_grad_(False)
    before = copy.deepcopy((frozen.state_dict(), trained.state_dict()))
    model.train()(**batch)
    assert all(torch.equal(tensor, before[0][name]) for name, tensor in frozen.state_dict().items())
    assert not torch.equal(trained.running_mean, before[1]["running_mean"])


@pytest.mark.parametrize("tower", ["audio", "text"])
def test_a_frozen_tower_stays_as_it_is(tiny_model, batch, tower):
    model = tiny_model(audio={"block_dropout": 0.2}).train()
    frozen = getattr(model, f"{tower}_model")
    getattr(model, f"freeze_{tower}_tower")()
    assert not any(module.training for module in frozen.modules())  # at once, not only from the next train()
    model.train()
    assert not any(module.training for module in frozen.modules())
    assert model.training
    assert getattr(model, f"{'text' if tower == 'audio' else 'audio'}_model").training

    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    outputs = [getattr(model(**batch, return_loss=True), f"{tower}_embeds") for _ in range(2)]
    assert torch.equal(*outputs)  # no dropout
    model(**batch, return_loss=True).loss.backward()
    optimizer.step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert not {name for name in changed if name.startswith(f"{tower}_model.")}
    heads = {name for name in before if "_projection." in name}
    assert heads <= changed
    assert {name for name in changed if name.startswith("text_model." if tower == "audio" else "audio_model.")}


def test_embeddings_can_be_resized(tiny_model, batch, tmp_path):
    model = tiny_model()
    expected = embeds(model(**batch))
    model.resize_token_embeddings(70, mean_resizing=False)
    assert model.get_input_embeddings() is model.text_model.embeddings.word_embeddings
    assert model.text_model.embeddings.word_embeddings.weight.shape == (70, 16)
    assert model.config.text_config.vocab_size == 70
    assert torch.equal(embeds(model(**batch)), expected)
    model.save_pretrained(tmp_path)
    reloaded = CNN10BertModel.from_pretrained(tmp_path)
    assert torch.equal(embeds(reloaded(**batch)), expected)
    new_token = {**batch, "input_ids": torch.full_like(batch["input_ids"], 69)}
    assert torch.isfinite(embeds(reloaded(**new_token))).all()


@pytest.mark.parametrize("kind", ["network", "tagger"])
def test_pretrained_towers_are_joined(tiny_config, randomise_norms, batch, tmp_path, kind):
    config = tiny_config()
    torch.manual_seed(0)
    if kind == "network":
        audio = randomise_norms(CNN10Model(config.audio_config)).eval()
        network = audio
    else:
        config.audio_config.id2label = {0: "dog", 1: "rain", 2: "siren"}
        config.audio_config.problem_type = "multi_label_classification"
        audio = randomise_norms(CNN10ForAudioClassification(config.audio_config)).eval()
        network = audio.cnn10
    text = BertModel(config.text_config).eval()  # with a pooler, as bert-base-uncased
    audio.to(torch.bfloat16).float().save_pretrained(tmp_path / "audio")
    text.save_pretrained(tmp_path / "text")

    fields = {"projection_dim": 12, "projection_hidden_size": 20, "text_pooling": "mean", "temperature": 0.1}
    model = CNN10BertModel.from_audio_text_pretrained(tmp_path / "audio", str(tmp_path / "text"), **fields)
    assert not model.training
    assert {name: getattr(model.config, name) for name in fields} == fields
    found = model.audio_model(batch["input_features"], batch["input_features_mask"])
    expected = network(batch["input_features"], batch["input_features_mask"])
    assert torch.equal(found.pooler_output, expected.pooler_output)
    tokens = text(batch["input_ids"], batch["attention_mask"]).last_hidden_state
    assert torch.equal(model.text_model(batch["input_ids"], batch["attention_mask"]).last_hidden_state, tokens)

    model.save_pretrained(tmp_path / "joined")
    saved = json.loads((tmp_path / "joined" / "config.json").read_text())
    assert saved["architectures"] == ["CNN10BertModel"]
    of_the_checkpoints = {"architectures", "auto_map", "id2label", "label2id", "problem_type", "_name_or_path", "dtype"}
    for part in ("audio_config", "text_config"):
        assert not of_the_checkpoints & saved[part].keys()
    reloaded = AutoModel.from_pretrained(tmp_path / "joined")
    assert torch.equal(embeds(reloaded(**batch)), embeds(model(**batch)))
    assert str(tmp_path) not in (tmp_path / "joined" / "config.json").read_text()


def test_towers_may_start_from_configurations(batch):
    audio = CNN10Config(hidden_sizes=[4, 6, 8, 10])
    text = BertConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24)
    model = CNN10BertModel.from_audio_text_pretrained(audio, text, projection_dim=8, projection_hidden_size=8)
    assert model(**batch).logits_per_audio.shape == (3, 3)


def test_a_tower_of_another_kind_is_refused(tiny_config, tmp_path):
    from transformers import RobertaConfig, RobertaModel

    config = RobertaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    RobertaModel(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a model of type 'roberta', but this tower is a 'bert'"):
        CNN10BertModel.from_audio_text_pretrained(tiny_config().audio_config, tmp_path)
    with pytest.raises(ValueError, match="holds a model of type 'roberta', but this tower is a 'cnn10'"):
        CNN10BertModel.from_audio_text_pretrained(tmp_path, tiny_config().text_config)


def test_a_tower_whose_checkpoint_lacks_weights_is_refused_by_their_names(tiny_config, tmp_path):
    from safetensors.torch import load_file, save_file

    config = tiny_config()
    CNN10Model(config.audio_config).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["layers.0.weight"] = weights.pop("blocks.1.conv2.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weights of a cnn10 \(blocks.1.conv2.weight.*layers.0.weight"):
        CNN10BertModel.from_audio_text_pretrained(tmp_path, config.text_config)


def test_a_pretrained_audio_tower_may_differ_in_what_has_no_weights(tiny_config, tmp_path):
    config = tiny_config()
    CNN10Model(CNN10Config(hidden_sizes=[4, 6, 8, 10], time_pooling="sum")).save_pretrained(tmp_path)
    fields = {"time_pooling": "average", "block_dropout": 0.3}
    model = CNN10BertModel.from_audio_text_pretrained(tmp_path, config.text_config, audio_fields=fields)
    assert {name: getattr(model.audio_model.config, name) for name in fields} == fields
    assert model.config.audio_config.time_pooling == "average"


def test_the_model_runs_on_the_meta_device(tiny_config, batch):
    # accelerate estimates memory so.
    with torch.device("meta"):
        model = CNN10BertModel(tiny_config())
    del batch["attention_mask"]  # at which BERT looks
    outputs = model(**{name: value.to("meta") for name, value in batch.items()}, return_loss=True)
    assert outputs.logits_per_audio.shape == (3, 3)


def test_the_documentation_names_every_argument(capsys):
    for method in (CNN10BertModel.forward, CNN10BertModel.get_audio_features, CNN10BertModel.get_text_features):
        for name in list(inspect.signature(method).parameters)[1:-1]:
            assert f"{name} (`" in method.__doc__
    assert "None" not in CNN10BertConfig.__doc__ + CNN10Config.__doc__  # what a missing introduction reads as


def test_the_lower_layers_of_the_text_network_can_be_frozen(tiny_model, batch):
    model = tiny_model().train()
    model.freeze_text_layers(1)
    model.train()
    lower, upper = model.text_model.encoder.layer
    assert not any(module.training for part in (model.text_model.embeddings, lower) for module in part.modules())
    assert upper.training
    model(**batch, return_loss=True).loss.backward()
    assert all(p.grad is None for part in (model.text_model.embeddings, lower) for p in part.parameters())
    assert all(p.grad is not None for p in upper.parameters())
    with pytest.raises(ValueError, match="has 2 layers, found 3"):
        model.freeze_text_layers(3)


@pytest.fixture
def captions():
    """Makes token ids and attention mask of 41 captions of 1 to 20 tokens, or of one that is longer than a row too."""

    def make(side="right", longest=20):
        lengths = torch.cat([torch.arange(1, 21), torch.arange(1, 21), torch.tensor([longest])])
        lengths = lengths[torch.randperm(len(lengths), generator=torch.Generator().manual_seed(0))]
        mask = (torch.arange(longest) < lengths[:, None]).long()
        mask = mask.flip(1) if side == "left" else mask
        return torch.randint(5, 20, mask.shape, generator=torch.Generator().manual_seed(1)), mask

    return make


@pytest.mark.parametrize(
    ("side", "longest", "attention", "checkpointing"),
    [
        ("right", 20, "sdpa", False),
        ("right", 20, "eager", False),
        ("left", 20, "sdpa", False),
        ("right", 150, "sdpa", False),
        ("right", 20, "sdpa", True),
    ],
)
def test_captions_in_rows_without_padding_are_what_they_are_in_a_padded_batch(
    tiny_model, captions, side, longest, attention, checkpointing
):
    input_ids, mask = captions(side, longest)
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = tiny_model(text={"max_position_embeddings": 150, **no_dropout}).train()
    model.set_attn_implementation(attention)
    if checkpointing:
        model.activation_checkpointing_enable()
    found = []
    for tokens in (
        model.get_text_features(input_ids, mask).last_hidden_state,
        model.text_model(input_ids=input_ids, attention_mask=mask).last_hidden_state,
    ):
        tokens = tokens * mask[:, :, None]
        weights = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(2))
        model.zero_grad()
        (tokens * weights).sum().div(100).backward()
        grads = {name: p.grad.clone() for name, p in model.text_model.named_parameters() if p.grad is not None}
        found.append((tokens, grads))
    (rows, row_grads), (padded, padded_grads) = found
    torch.testing.assert_close(rows, padded, rtol=0, atol=1e-6)
    assert row_grads.keys() == padded_grads.keys()
    for name, grad in padded_grads.items():
        torch.testing.assert_close(row_grads[name], grad, rtol=1e-5, atol=1e-6, msg=name)


@torch.no_grad()
def test_captions_in_rows_agree_in_bfloat16_too(tiny_model, captions):
    input_ids, mask = captions()
    model = tiny_model()
    expected = model.get_text_features(input_ids, mask).pooler_output
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(model.get_text_features(input_ids, mask).pooler_output, expected, rtol=0, atol=0.02)
    half = tiny_model().to(torch.bfloat16).get_text_features(input_ids, mask).pooler_output
    torch.testing.assert_close(half, expected, rtol=0, atol=0.02)


class Watched(torch.nn.Module):
    """A module and the shapes of its outputs. Hooks would switch off what is faster on a CPU."""

    def __init__(self, module):
        super().__init__()
        self.module, self.shapes = module, []

    def forward(self, *args, **kwargs):
        output = self.module(*args, **kwargs)
        self.shapes.append(output.shape)
        return output


@torch.no_grad()
@pytest.mark.parametrize("longest", [20, 150])
def test_nearly_no_padding_goes_through_the_text_network(tiny_model, captions, longest):
    input_ids, mask = captions(longest=longest)
    model = tiny_model(text={"max_position_embeddings": 150})
    model.text_model.embeddings = Watched(model.text_model.embeddings)
    model.get_text_features(input_ids, mask)
    ((rows, columns, _),) = model.text_model.embeddings.shapes
    assert mask.sum() <= rows * columns <= 1.1 * mask.sum()


@torch.no_grad()
def test_captions_whose_hidden_states_are_wanted_and_captions_of_one_length_stay_in_their_batch(tiny_model, captions):
    input_ids, mask = captions()
    model = tiny_model()
    outputs = model.get_text_features(input_ids, mask, output_hidden_states=True)
    assert all(states.shape[:2] == input_ids.shape for states in outputs.hidden_states)
    model.text_model.embeddings = Watched(model.text_model.embeddings)
    model.get_text_features(input_ids, torch.ones_like(mask))
    assert [shape[:2] for shape in model.text_model.embeddings.shapes] == [input_ids.shape]


@torch.no_grad()
def test_captions_stay_in_their_batch_where_a_hook_watches(tiny_model, captions):
    input_ids, mask = captions()
    model = tiny_model()
    shapes = []
    model.text_model.embeddings.register_forward_hook(lambda module, given, found: shapes.append(found.shape[:2]))
    model.get_text_features(input_ids, mask)
    assert shapes == [input_ids.shape]


def test_flash_attention_which_takes_no_mask_of_pairs_gets_the_padded_batch(tiny_model, captions):
    input_ids, mask = captions()
    model = tiny_model()
    model.text_model.config._attn_implementation = "flash_attention_2"
    given = {}

    def look(module, args, kwargs):
        given.update(kwargs)
        raise InterruptedError  # there is no flash attention to run on

    model.text_model.register_forward_pre_hook(look, with_kwargs=True)
    with pytest.raises(InterruptedError):
        model.get_text_features(input_ids, mask)
    assert given["input_ids"] is input_ids
    assert given["attention_mask"] is mask


# ------------------------------------------------------------------------------------------- precision, and one tower


@pytest.mark.parametrize("given", [{}, {"dtype": "auto"}, {"dtype": torch.bfloat16}], ids=str)
def test_a_model_saved_in_bfloat16_comes_back_in_bfloat16_but_for_its_input_norm(given, tiny_model, tmp_path):
    tiny_model().to(torch.bfloat16).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    model = CNN10BertModel.from_pretrained(tmp_path, **given)
    assert model.dtype == model.audio_model.dtype == torch.bfloat16
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            assert value.dtype == (torch.float32 if "input_norm" in name else torch.bfloat16), name
    model.save_pretrained(tmp_path / "again")
    assert CNN10BertModel.from_pretrained(tmp_path / "again").dtype == torch.bfloat16
    assert CNN10BertModel.from_pretrained(tmp_path / "again", dtype=torch.float32).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_from_config_keeps_the_input_norm_in_float32(dtype, tiny_config):
    model = AutoModel.from_config(tiny_config(), dtype=dtype)
    norm = model.audio_model.input_norm
    assert model.dtype == model.audio_model.blocks[0].conv1.weight.dtype == dtype
    assert {norm.weight.dtype, norm.bias.dtype, norm.running_mean.dtype, norm.running_var.dtype} == {torch.float32}


def _same_tower(audio, expected):
    weights, expected = audio.state_dict(), expected.state_dict()
    return weights.keys() == expected.keys() and all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.parametrize("learnable", [False, True])
def test_the_audio_network_of_a_retrieval_model_is_found_and_saved_under_its_own_names(learnable, tiny_model, tmp_path):
    model = tiny_model(learnable_temperature=learnable)
    model.save_pretrained(tmp_path / "retrieval")
    audio, loading = CNN10Model.from_pretrained(tmp_path / "retrieval", output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    assert _same_tower(audio, model.audio_model)
    audio.save_pretrained(tmp_path / "audio")
    again, loading = CNN10Model.from_pretrained(tmp_path / "audio", output_loading_info=True)
    assert not loading["missing_keys"] and _same_tower(again, model.audio_model)


def test_a_tagger_starts_from_the_audio_network_of_a_retrieval_model_with_a_head_that_is_new(tiny_model, tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path / "retrieval")
    tagger, loading = CNN10ForAudioClassification.from_pretrained(
        tmp_path / "retrieval", num_labels=3, output_loading_info=True
    )
    assert _same_tower(tagger.cnn10, model.audio_model)
    assert loading["missing_keys"] == {"dense.weight", "dense.bias", "classifier.weight", "classifier.bias"}
    tagger.save_pretrained(tmp_path / "tagger")
    again, loading = CNN10ForAudioClassification.from_pretrained(tmp_path / "tagger", output_loading_info=True)
    assert not loading["missing_keys"] and _same_tower(again.cnn10, model.audio_model)
    assert _same_tower(CNN10Model.from_pretrained(tmp_path / "tagger"), model.audio_model)


# ------------------------------------------------------------------------------------------------------------- frames


def test_a_frame_has_the_same_embedding_at_any_padding(tiny_model, log_mels):
    model = tiny_model()
    features, mask, clips = log_mels([100, 163], num_frames=400)
    with torch.inference_mode():
        padded = model.get_audio_frame_features(features, mask, context_frames=5)
        for row, clip in zip(padded, clips, strict=True):
            alone = model.get_audio_frame_features(clip[None], context_frames=5)[0]
            assert alone.shape == (len(clip) // 16, 12)
            torch.testing.assert_close(row[: len(alone)], alone, atol=1e-6, rtol=0)


def test_a_frame_without_context_has_the_projection_of_its_own_vector(tiny_model, log_mels):
    model = tiny_model()
    features = log_mels([100])[0]
    with torch.inference_mode():
        vectors = model.audio_model(features).last_hidden_state
        expected = model.audio_projection(vectors)
        torch.testing.assert_close(model.get_audio_frame_features(features), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("moments", [0, 1])
def test_a_frame_with_all_frames_as_context_has_the_embedding_of_the_recording(tiny_model, log_mels, moments):
    model = tiny_model(audio={"temporal_moments": moments})
    features, mask, _ = log_mels([163, 90])
    with torch.inference_mode():
        whole = model.get_audio_features(features, mask).pooler_output
        frames = model.get_audio_frame_features(features, mask, context_frames=21)
    torch.testing.assert_close(frames[0], whole[:1].expand(10, -1), atol=1e-6, rtol=0)
    torch.testing.assert_close(frames[1, :5], whole[1:].expand(5, -1), atol=1e-6, rtol=0)


def test_the_moment_of_a_frame_is_that_of_its_neighbors(tiny_model, log_mels):
    model = tiny_model(audio={"temporal_moments": 1})
    features = log_mels([163])[0]
    with torch.inference_mode():
        frames = model.audio_model(features).last_hidden_state  # [1, 10, C]
        found = model.get_audio_frame_features(features, context_frames=5)[0]
        for center, neighbors in ((0, frames[0, :3]), (4, frames[0, 2:7]), (9, frames[0, 7:])):
            pooled = model.audio_model._pool_over_time(neighbors[None], None)
            torch.testing.assert_close(found[center], model.audio_projection(pooled)[0], atol=1e-6, rtol=0)


def test_an_even_context_has_no_center_and_is_refused(tiny_model, log_mels):
    with pytest.raises(ValueError, match="context_frames must be odd, found 4"):
        tiny_model().get_audio_frame_features(log_mels([100])[0], context_frames=4)
