"""Configurations: the paper's defaults, validation, and the way to disk and back."""

import pytest
from transformers import AutoConfig, BertConfig

from modeling_cnn10bert import CNN10BertConfig, CNN10Config


def fields(config):
    return {name: value for name, value in config.to_dict().items() if name != "_name_or_path"}


def test_the_defaults_are_the_papers():
    config = CNN10BertConfig()
    assert config.audio_config.hidden_sizes == [64, 128, 256, 512]  # table 2
    assert config.audio_config.num_mel_bins == 64  # section 6.1
    assert (config.projection_hidden_size, config.projection_dim) == (2048, 1024)  # sections 6.2 and 6.3
    assert config.text_config.to_dict() == BertConfig().to_dict()  # bert-base-uncased
    assert config.audio_config.min_frames == 16  # four halvings leave one


def test_fields_survive_a_save(tmp_path, tiny_config):
    config = tiny_config(
        audio={"time_pooling": "sum", "block_dropout": 0.2, "head_dropout": 0.5, "batch_norm_momentum": 0.3},
        text={"hidden_dropout_prob": 0.25},
        temperature=0.02,
        learnable_temperature=True,
        text_pooling="mean",
    )
    config.save_pretrained(tmp_path)
    for reloaded in (CNN10BertConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert isinstance(reloaded, CNN10BertConfig)
        assert isinstance(reloaded.audio_config, CNN10Config)
        assert isinstance(reloaded.text_config, BertConfig)
        assert fields(reloaded) == fields(config)
    assert config.to_dict()["audio_config"]["block_dropout"] == 0.2
    assert config.to_dict()["text_config"]["hidden_dropout_prob"] == 0.25


def test_a_tuple_of_widths_equals_the_list_that_json_returns(tmp_path):
    config = CNN10Config(hidden_sizes=(8, 16))
    config.save_pretrained(tmp_path)
    assert fields(CNN10Config.from_pretrained(tmp_path)) == fields(config)
    assert (config.hidden_size, config.num_hidden_layers, config.min_frames) == (16, 2, 4)


def test_sub_configurations_are_given_as_dicts_too():
    config = CNN10BertConfig(audio_config={"hidden_sizes": [4, 8]}, text_config={"hidden_size": 24})
    assert config.audio_config.hidden_size == 8
    assert config.text_config.hidden_size == 24


def test_an_audio_network_loads_from_the_configuration_of_a_retrieval_model(tmp_path, tiny_config):
    tiny_config().save_pretrained(tmp_path)
    assert CNN10Config.from_pretrained(tmp_path).hidden_sizes == [4, 6, 8, 10]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CNN10Config(num_mel_bins=8), "num_mel_bins is 8.*at least 16"),
        (lambda: CNN10Config(hidden_sizes=[]), r"hidden_sizes.*found \[\]"),
        (lambda: CNN10Config(hidden_sizes=[4, 0]), r"hidden_sizes.*found \[4, 0\]"),
        (lambda: CNN10Config(time_pooling="max"), "time_pooling"),
        (lambda: CNN10BertConfig(temperature=0), "temperature must be positive, found 0"),
        (lambda: CNN10BertConfig(temperature=-0.1), "temperature must be positive, found -0.1"),
        (lambda: CNN10BertConfig(text_pooling="max"), "text_pooling"),
    ],
)
def test_an_impossible_value_is_refused_by_name(make, message):
    with pytest.raises(Exception, match=f"(?s){message}"):
        make()


def test_a_temperature_of_one_may_be_written_as_an_integer():
    assert CNN10BertConfig(temperature=1).temperature == 1
