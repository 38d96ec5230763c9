"""A tiny model, a folder of synthetic sounds with hostile names and captions, and one server of both for all tests."""

import contextlib
import csv
import socket
import threading
import time

import numpy as np
import pytest
import soundfile
import torch
from transformers import BertConfig, BertTokenizer

from demo.synthesizers import SAMPLING_RATE, SYNTHESIZERS
from modeling_cnn10bert import (
    CNN10BertConfig,
    CNN10BertModel,
    CNN10BertProcessor,
    CNN10Config,
    CNN10FeatureExtractor,
)

# A file's name holds no slash, so that an attribute is to run; what is in braces, a template engine would compute.
HOSTILE_NAME = "<img src=x onerror=window.hacked=1> {{7*7}} ${window.hacked=1}.flac"
HOSTILE_CAPTION = "<script>window.hacked=1</script> a strange hum & a “buzz” {{value}} `${window.hacked=1}`"


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A saved toy model with its processor; its weights are random."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + letter for letter in letters)]
    tokenizer = BertTokenizer(vocab={piece: index for index, piece in enumerate(pieces)})
    processor = CNN10BertProcessor(CNN10FeatureExtractor(), CNN10BertProcessor.caption_tokenizer(tokenizer))
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    config = CNN10BertConfig(
        audio_config=CNN10Config(hidden_sizes=[4, 6, 8, 10]),
        text_config=BertConfig(vocab_size=len(pieces), **text),
        projection_hidden_size=20,
        projection_dim=12,
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    CNN10BertModel(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def sounds(tmp_path_factory):
    """Twelve recordings of 5 s with their captions, one of them with a name and a caption that are code; and a file
    that is none of the page's business."""
    folder = (tmp_path_factory.mktemp("collection") / "sounds").resolve()
    folder.mkdir()
    rows = []
    for number, (kind, synthesizer) in enumerate(list(SYNTHESIZERS.items())[:12]):
        waveform = synthesizer.function(np.random.default_rng(number), SAMPLING_RATE)
        name = HOSTILE_NAME if number == 3 else f"{kind}.flac"
        soundfile.write(folder / name, waveform, SAMPLING_RATE)
        rows.append((name, HOSTILE_CAPTION if number == 3 else synthesizer.phrases[0]))
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file_name", "caption"), *rows])
    (folder / "notes.txt").write_text("a secret beside the recordings")
    return folder


@pytest.fixture(scope="session")
def library(model_folder, sounds):
    from modeling_cnn10bert.page.sound_library import open_folder

    library = open_folder(sounds, str(model_folder))
    yield library
    library.retriever.close()


@contextlib.contextmanager
def running_page(library, *names):
    """The address of a running page, which is served to others if it has further names."""
    pytest.importorskip("gradio", reason="gradio is not installed (the extra `app`)")
    import uvicorn

    from modeling_cnn10bert.page.server import make_app

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = uvicorn.Server(
        uvicorn.Config(make_app(library, names=names), host="127.0.0.1", port=port, log_level="warning")
    )
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    running.should_exit = True
    thread.join(timeout=10)


@pytest.fixture(scope="session")
def server(library):
    """The address of a running page on one's own machine."""
    with running_page(library) as address:
        yield address
