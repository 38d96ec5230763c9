"""The pipelines of transformers: the right answers' form, and text normalisation where no processor is called."""

import numpy as np
import pytest
import torch
from transformers import pipeline

from modeling_cnn10bert import CNN10Config, CNN10ForAudioClassification

LABELS = ["dog", "rain", "siren"]


@pytest.fixture
def siren():
    """Two seconds of a swept tone: something runs where there are no recordings."""
    time = np.arange(64_000) / 32_000
    return (0.3 * np.sin(2 * np.pi * (600 * time + 150 * np.sin(2 * np.pi * time)))).astype(np.float32)


@pytest.fixture
def dog_bark(real_recordings):
    return real_recordings["1-100032-A.ogg"]


@pytest.fixture(params=["siren", "dog_bark"])
def recording(request):
    return request.getfixturevalue(request.param)


def by_label(answer):
    return {entry["label"]: entry["score"] for entry in answer}


def test_zero_shot_classification_scores_the_labels(tiny_folder, recording, processor):
    folder, model = tiny_folder
    classify = pipeline("zero-shot-audio-classification", model=str(folder), device="cpu")
    answer = classify(recording, candidate_labels=LABELS)
    captions = [f"This is a sound of {label}." for label in LABELS]  # the pipeline's own template
    inputs = processor(text=captions, audio=recording, sampling_rate=32_000, return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs).logits_per_audio[0].softmax(dim=0).tolist()
    assert by_label(answer) == pytest.approx(dict(zip(LABELS, expected, strict=True)), abs=1e-6)
    assert len({round(score, 4) for score in expected}) == 3  # an answer that says something
    assert [entry["score"] for entry in answer] == sorted(expected, reverse=True)


def test_case_and_punctuation_of_labels_do_not_matter(tiny_folder, recording):
    folder, _ = tiny_folder
    classify = pipeline("zero-shot-audio-classification", model=str(folder), device="cpu")
    plain = classify(recording, candidate_labels=LABELS, hypothesis_template="this is a sound of {}")
    marked = classify(
        recording, candidate_labels=["DOG!", "'Rain'", "s-i-r-e-n..."], hypothesis_template="THIS is, a sound of {}"
    )
    assert [entry["score"] for entry in marked] == [entry["score"] for entry in plain]


def test_zero_shot_classification_runs_in_bfloat16(tiny_folder, siren):
    folder, _ = tiny_folder
    answers = [
        by_label(
            pipeline("zero-shot-audio-classification", model=str(folder), dtype=dtype, device="cpu")(
                siren, candidate_labels=LABELS
            )
        )
        for dtype in (torch.float32, torch.bfloat16)
    ]
    assert answers[1] == pytest.approx(answers[0], abs=0.15)
    assert sum(answers[1].values()) == pytest.approx(1, abs=1e-3)


def test_audio_classification_names_the_labels(tmp_path, recording, randomise_norms, feature_extractor):
    names = dict(enumerate(LABELS))
    torch.manual_seed(0)
    config = CNN10Config(hidden_sizes=[4, 6, 8, 10], id2label=names, label2id={v: k for k, v in names.items()})
    model = randomise_norms(CNN10ForAudioClassification(config)).eval()
    model.save_pretrained(tmp_path)
    feature_extractor.save_pretrained(tmp_path)
    classify = pipeline("audio-classification", model=str(tmp_path), device="cpu")
    inputs = feature_extractor(recording, sampling_rate=32_000, return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs).logits[0].softmax(dim=0).tolist()
    assert by_label(classify(recording)) == pytest.approx(dict(zip(LABELS, expected, strict=True)), abs=1e-6)
    assert len(classify([recording, recording[:20_000]], batch_size=2)) == 2


def test_audio_classification_brings_other_rates_to_32_khz(tmp_path, siren, randomise_norms, feature_extractor):
    pytest.importorskip("torchaudio")
    torch.manual_seed(0)
    model = randomise_norms(CNN10ForAudioClassification(CNN10Config(hidden_sizes=[4, 6, 8, 10], num_labels=3)))
    model.save_pretrained(tmp_path)
    feature_extractor.save_pretrained(tmp_path)
    classify = pipeline("audio-classification", model=str(tmp_path), device="cpu")
    full = by_label(classify(siren))
    halved = by_label(classify({"raw": siren[::2].copy(), "sampling_rate": 16_000}))  # the tone lies below 8 kHz
    assert halved == pytest.approx(full, abs=0.05)
