"""The metric on embeddings, both directions, against the loaded metric and arithmetic by hand."""

import numpy as np
import pytest
import torch

from modeling_cnn10bert.evaluation.metric import load_retrieval_metric, rank_both_directions


def random_test_set(num_audio=30, captions_each=5, width=16, seed=0):
    """Recordings and captions that resemble them a little; the captions are shuffled."""
    rng = np.random.default_rng(seed)
    ids_of_text = rng.permutation(np.repeat(np.arange(num_audio), captions_each))
    audio = rng.standard_normal((num_audio, width)).astype(np.float32)
    text = (audio[ids_of_text] + 1.5 * rng.standard_normal((len(ids_of_text), width))).astype(np.float32)
    return audio, text, np.arange(num_audio), ids_of_text


def cosine(rows, columns):
    return torch.nn.functional.cosine_similarity(
        torch.tensor(rows)[:, None].double(), torch.tensor(columns)[None].double(), dim=-1
    ).numpy()


def test_both_directions_agree_with_the_loaded_metric():
    audio, text, ids_of_audio, ids_of_text = random_test_set()
    scores = rank_both_directions(audio, text, ids_of_audio, ids_of_text).metrics()
    metric = load_retrieval_metric()
    text_to_audio = metric.compute(predictions=cosine(text, audio), references=ids_of_text)
    relevant = [np.flatnonzero(ids_of_text == i) for i in ids_of_audio]
    audio_to_text = metric.compute(predictions=cosine(audio, text), references=relevant)
    assert {name: scores[name] for name in text_to_audio} == pytest.approx(text_to_audio)
    assert {name: scores[f"a2t_{name}"] for name in audio_to_text} == pytest.approx(audio_to_text)
    assert scores["chance_mAP@10"] < scores["mAP@10"] < 1  # the case is neither hopeless nor trivial


def test_a_small_set_by_hand():
    audio = np.array([[1, 0], [0, 1]], dtype=np.float32)
    text = np.array([[1, 0.1], [0.1, 1], [1, 0.2]], dtype=np.float32)  # the third belongs to the second recording
    scores = rank_both_directions(audio, text, ["x", "y"], ["x", "y", "y"]).metrics()
    assert (scores["R@1"], scores["mAP@10"], scores["MedR"]) == pytest.approx((2 / 3, (1 + 1 + 1 / 2) / 3, 1))
    # recording x ranks captions 0, 2, 1: AP 1; recording y ranks 1, 2, 0: AP 1
    assert (scores["a2t_R@1"], scores["a2t_mAP@10"]) == (1, 1)
    assert (scores["chance_R@1"], scores["chance_mAP@10"]) == pytest.approx((1 / 2, (1 + 1 / 2) / 2))
    # one of two queries has 1, the other 2 of 3 captions: of 3 rankings each, AP 1, 1/2, 1/3 and 1, 5/6, 7/12
    assert scores["chance_a2t_R@1"] == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert scores["chance_a2t_mAP@10"] == pytest.approx(((1 + 1 / 2 + 1 / 3) / 3 + (1 + 5 / 6 + 7 / 12) / 3) / 2)


def test_every_metric_but_the_median_ranks_has_its_chance_level():
    scores = rank_both_directions(*random_test_set()).metrics()
    measured = {name for name in scores if not name.startswith("chance_")}
    assert {f"chance_{name}" for name in measured if not name.endswith("MedR")} == set(scores) - measured


def test_unrelated_embeddings_score_at_the_chance_level():
    audio, _, ids_of_audio, ids_of_text = random_test_set(num_audio=200, width=64, seed=1)
    text = np.random.default_rng(2).standard_normal((1000, 64)).astype(np.float32)
    scores = rank_both_directions(audio, text, ids_of_audio, ids_of_text).metrics()
    assert scores["mAP@10"] == pytest.approx(scores["chance_mAP@10"], abs=0.012)
    assert scores["R@10"] == pytest.approx(scores["chance_R@10"], abs=0.03)


def test_order_length_and_container_of_the_embeddings_do_not_matter():
    audio, text, ids_of_audio, ids_of_text = random_test_set()
    expected = rank_both_directions(audio, text, ids_of_audio, ids_of_text).metrics()
    order = np.random.default_rng(3).permutation(len(audio))
    scores = rank_both_directions(
        torch.tensor(audio[order] * 3, requires_grad=True),
        torch.tensor(text),
        [f"recording {i}" for i in ids_of_audio[order]],
        [f"recording {i}" for i in torch.tensor(ids_of_text)],
    ).metrics()
    assert scores == pytest.approx(expected)


def test_half_precision_embeddings_are_taken():
    audio, text, ids_of_audio, ids_of_text = random_test_set()
    scores = rank_both_directions(
        torch.tensor(audio).bfloat16(), torch.tensor(text).bfloat16(), torch.tensor(ids_of_audio), ids_of_text
    ).metrics()
    assert scores["mAP@10"] > scores["chance_mAP@10"]


def test_a_collapsed_model_finds_nothing():
    rng = np.random.default_rng(4)
    one = rng.standard_normal(1024).astype(np.float32)
    ids = np.arange(203)
    scores = rank_both_directions(np.tile(one, (203, 1)), np.tile(one, (1015, 1)), ids, np.repeat(ids, 5)).metrics()
    assert (scores["R@10"], scores["mAP@10"], scores["MedR"]) == (0, 0, 203)
    assert (scores["a2t_R@10"], scores["a2t_MedR"]) == (0, 1015 - 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"audio": np.ones((3, 5))}, "audio_embeds are 5 wide, text_embeds 4"),
        ({"audio": np.ones(4)}, r"audio_embeds must be a non-empty matrix \[rows, width\]; got shape \(4,\)"),
        ({"audio": np.eye(3, 4) * [[1], [0], [1]]}, "row 1 of audio_embeds has norm 0.0"),
        ({"text": np.eye(3, 4) * [[1], [1], [np.nan]]}, "row 2 of text_embeds has norm nan"),
        ({"ids_of_audio": ["a", "b"]}, "recording_ids_of_audio has 2 entries for 3 embeddings"),
        ({"ids_of_text": ["a", "b", "c", "c"]}, "recording_ids_of_text has 4 entries for 3 embeddings"),
        ({"ids_of_audio": ["a", "b", "a"]}, "recording 'a' is embedded twice"),
        ({"ids_of_text": ["a", "d", "c"]}, "caption 1 describes recording 'd'"),
        ({"ids_of_text": ["a", "a", "c"]}, "recording 'b' has no caption"),
    ],
)
def test_a_wrong_test_set_is_an_error_that_says_where(change, message):
    inputs = {"audio": np.eye(3, 4), "text": np.eye(3, 4), "ids_of_audio": list("abc"), "ids_of_text": list("abc")}
    with pytest.raises(ValueError, match=message):
        rank_both_directions(*(inputs | change).values()).metrics()


# ------------------------------------------------------------------------------------------------ repeated captions


def test_a_caption_of_several_recordings_finds_each_of_them():
    """Recordings x and y both have the caption "rain"; of three recordings, z comes between them."""
    audio = np.array([[1, 0], [0, 1], [0.7, 0.7]], dtype=np.float32)
    text = np.array([[1, 0.5], [1, 0.5], [0.1, 1], [0.6, 0.7]], dtype=np.float32)
    ids_of_text, keys = ["x", "y", "y", "z"], ["rain", "rain", "wind", "bell"]
    scores = rank_both_directions(audio, text, ["x", "y", "z"], ids_of_text, keys).metrics()
    # "rain" ranks z, x, y, of which x and y are right: AP (1/2 + 2/3) / 2; "wind" and "bell" find theirs first.
    assert scores["mAP@10"] == pytest.approx((2 * (1 / 2 + 2 / 3) / 2 + 1 + 1) / 4)
    assert (scores["R@1"], scores["R@5"], scores["MedR"]) == (0.5, 1.0, 1.5)
    # x is described by both rows of "rain", which tie at its top; y by these and "wind", its first; z by "bell" alone.
    assert (scores["a2t_R@1"], scores["a2t_MedR"]) == (1.0, 1.0)
    # y ranks "wind", "bell", "rain", "rain": AP (1 + 2/3 + 3/4) / 3.
    assert scores["a2t_mAP@10"] == pytest.approx((1 + (1 + 2 / 3 + 3 / 4) / 3 + 1) / 3)
    # By chance the first of three recordings is right with 2/3 for each "rain" and with 1/3 for the others.
    assert scores["chance_R@1"] == pytest.approx((2 / 3 + 2 / 3 + 1 / 3 + 1 / 3) / 4)
    assert scores["chance_a2t_R@1"] == pytest.approx((2 / 4 + 3 / 4 + 1 / 4) / 3)


def test_a_model_at_chance_scores_as_chance_where_all_captions_are_class_names():
    """80 recordings of ten classes, each described by its class alone; embeddings know nothing of it."""
    rng = np.random.default_rng(0)
    classes = np.repeat(np.arange(10), 8)
    found = []
    for _ in range(200):
        audio, of_class = rng.standard_normal((80, 16)), rng.standard_normal((10, 16))
        scores = rank_both_directions(audio, of_class[classes], range(80), range(80), classes).metrics()
        found.append([scores["R@1"], scores["a2t_R@1"], scores["mAP@10"]])
    assert (scores["chance_R@1"], scores["chance_a2t_R@1"]) == pytest.approx((8 / 80, 8 / 80))
    expected = [scores["chance_R@1"], scores["chance_a2t_R@1"], scores["chance_mAP@10"]]
    assert np.mean(found, axis=0) == pytest.approx(expected, abs=0.02)


def test_where_captions_do_not_repeat_their_keys_change_no_bit():
    test_set = random_test_set()
    expected = rank_both_directions(*test_set).metrics()
    keys = np.random.default_rng(1).permutation(len(test_set[1]))
    assert rank_both_directions(*test_set, keys).metrics() == expected
    # Nor do they where only the captions of one recording repeat.
    assert rank_both_directions(*test_set, test_set[3]).metrics() == expected


def test_a_key_for_each_caption_is_asked_for():
    with pytest.raises(ValueError, match="caption_keys has 3 entries for 150 embeddings"):
        rank_both_directions(*random_test_set(), [1, 2, 3]).metrics()
