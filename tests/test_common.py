"""What transformers' own tests ask of every model class, for the three of ours."""

import copy
import inspect
import json
import pickle

import numpy as np
import pytest
import torch

from modeling_cnn10bert import CNN10BertModel, CNN10Config, CNN10ForAudioClassification, CNN10Model

AUDIO = {"hidden_sizes": [4, 6, 8, 10], "num_labels": 3}


@pytest.fixture(params=[CNN10Model, CNN10ForAudioClassification, CNN10BertModel])
def model(request, tiny_config, randomise_norms):
    torch.manual_seed(0)
    cls = request.param
    config = tiny_config() if cls is CNN10BertModel else CNN10Config(**AUDIO)
    return randomise_norms(cls(config), 0).eval()


@pytest.fixture
def inputs(model):
    generator = torch.Generator().manual_seed(1)
    mask = (torch.arange(40) < torch.tensor([40, 21, 33])[:, None]).int()
    features = -40 + 15 * torch.randn(3, 40, 64, generator=generator)
    inputs = {"input_features": features * mask[:, :, None], "input_features_mask": mask}
    if isinstance(model, CNN10BertModel):
        inputs["input_ids"] = torch.randint(5, 50, (3, 9), generator=generator)
        inputs["attention_mask"] = (torch.arange(9) < torch.tensor([9, 3, 6])[:, None]).int()
    return inputs


@pytest.fixture
def loss(model, inputs):
    """Computes a loss of the model."""

    def compute():
        if isinstance(model, CNN10BertModel):
            return model(**inputs, return_loss=True).loss
        if isinstance(model, CNN10ForAudioClassification):
            return model(**inputs, labels=torch.tensor([0, 2, 1])).loss
        return model(**inputs).pooler_output.square().mean()

    return compute


def tensors(outputs):
    """The tensors among the outputs of a model, by name."""
    found = {}
    for name, value in outputs.items():
        if isinstance(value, torch.Tensor):
            found[name] = value.detach()
        elif hasattr(value, "items"):
            found |= {f"{name}.{inner}": tensor for inner, tensor in tensors(value).items()}
    return found


def assert_same_outputs(found, expected, atol=1e-6):
    found, expected = tensors(found), tensors(expected)
    assert found.keys() == expected.keys() and found
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=atol, rtol=0, msg=name)


def test_the_main_input_comes_first(model):
    assert list(inspect.signature(model.forward).parameters)[0] == model.main_input_name


def test_outputs_do_not_change_from_call_to_call(model, inputs):
    assert_same_outputs(model(**inputs), model(**inputs), atol=0)


@pytest.mark.parametrize("shard_size", ["50GB", "4KB"])
def test_a_saved_model_has_the_same_outputs(model, inputs, tmp_path, shard_size):
    model.save_pretrained(tmp_path, max_shard_size=shard_size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard_size == "4KB")
    again, loading = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading.values())
    assert_same_outputs(again(**inputs), model(**inputs))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copied_model_has_the_same_outputs(model, inputs, copied):
    assert_same_outputs(copied(model)(**inputs), model(**inputs))


def test_weights_alone_make_the_same_model(model, inputs):
    other = type(model)(model.config).eval()
    other.load_state_dict(model.state_dict())
    assert_same_outputs(other(**inputs), model(**inputs))


def test_every_weight_is_trained(model, loss):
    model.train()
    loss().backward()
    unused = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    # Position embeddings beyond the captions are part of a weight that is trained.
    assert unused == []


def test_hidden_states_keep_their_gradients(model, inputs):
    outputs = model(**inputs, output_hidden_states=True)
    if isinstance(model, CNN10BertModel):
        states = [*outputs.audio_model_output.hidden_states, *outputs.text_model_output.hidden_states]
        value = outputs.logits_per_audio.sum()
    else:
        states, value = list(outputs.hidden_states), outputs[0].sum()
    for state in states:
        state.retain_grad()
    value.backward()
    assert all(state.grad is not None and state.grad.any() for state in states)


def test_a_clip_has_the_same_outputs_alone_and_in_a_batch(model, inputs):
    together = model(**inputs)
    name = {"CNN10BertModel": "audio_embeds", "CNN10Model": "pooler_output"}.get(type(model).__name__, "logits")
    for row in range(3):
        alone = model(**{key: value[row : row + 1] for key, value in inputs.items()})
        torch.testing.assert_close(alone[name][0], together[name][row], atol=1e-5, rtol=0)


def test_weights_of_another_shape_are_refused_or_new(model, inputs, tmp_path):
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    if isinstance(model, CNN10BertModel):
        config["projection_dim"] += 2
    else:
        config["hidden_sizes"][-1] += 2
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RuntimeError, match="size mismatch|ignore_mismatched_sizes"):
        type(model).from_pretrained(tmp_path)
    other, loading = type(model).from_pretrained(tmp_path, ignore_mismatched_sizes=True, output_loading_info=True)
    assert loading["mismatched_keys"]
    assert all(torch.isfinite(value).all() for value in tensors(other(**inputs)).values())


def test_input_embeddings_are_those_of_the_text_network(model):
    if not isinstance(model, CNN10BertModel):
        with pytest.raises(NotImplementedError):
            model.get_input_embeddings()
        return
    embeddings = torch.nn.Embedding(*model.get_input_embeddings().weight.shape)
    model.set_input_embeddings(embeddings)
    assert model.get_input_embeddings() is model.text_model.embeddings.word_embeddings is embeddings


def test_the_configuration_survives_json_and_a_save(model, tmp_path):
    config = model.config
    config.save_pretrained(tmp_path)
    assert type(config).from_pretrained(tmp_path).to_dict() == config.to_dict()
    assert type(config).from_dict(json.loads(config.to_json_string(use_diff=False))).to_dict() == config.to_dict()


def test_the_processor_takes_arguments_by_kind_and_refuses_them_twice(processor, noise):
    inputs = {"text": "a dog", "audio": noise(32_000)}
    outputs = processor(
        **inputs,
        text_kwargs={"padding": "max_length", "max_length": 20},
        audio_kwargs={"sampling_rate": 32_000, "padding": "max_length", "max_length": 150},
        common_kwargs={"return_tensors": "np"},
    )
    assert outputs["input_ids"].shape == (1, 20)
    assert outputs["input_features"].shape == (1, 150, 64)
    assert isinstance(outputs["input_ids"], np.ndarray)
    with pytest.raises(ValueError, match="sampling_rate"):
        processor(**inputs, sampling_rate=32_000, audio_kwargs={"sampling_rate": 44_100})
