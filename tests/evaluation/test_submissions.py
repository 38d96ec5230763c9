"""Output files of the challenges: byte for byte as published, read again as written, scored as known."""

import numpy as np
import pandas
import pytest

from modeling_cnn10bert.data.recipes.clotho import read_captions
from modeling_cnn10bert.errors import DataError, RetrievalError
from modeling_cnn10bert.evaluation.recordings import load_evaluation_set
from modeling_cnn10bert.evaluation.submissions import (
    is_ranked_output,
    read_dcase2022,
    read_dcase2025,
    score_matrix,
    score_ranked_output,
    write_dcase2022,
    write_dcase2025,
)

NAMES = [f"{letter}.wav" for letter in "abcdefghijkl"]
CLOTHO = ["file_name", *(f"caption_{number}" for number in range(1, 6))]


def test_the_published_output_of_2022_is_written_again_byte_for_byte(shared_data, tmp_path):
    published = shared_data / "golden_metrics" / "dcase2022_baseline_output.csv"
    captions, ranked = read_dcase2022(published)
    write_dcase2022(tmp_path / "again.csv", captions, ranked)
    assert (tmp_path / "again.csv").read_bytes() == published.read_bytes()


def test_the_published_output_has_its_known_scores(shared_data):
    published = shared_data / "golden_metrics" / "dcase2022_baseline_output.csv"
    metrics = score_ranked_output(published, shared_data / "clotho" / "clotho_captions_evaluation.csv")
    known = {"R@1": 0.031579, "R@5": 0.109474, "R@10": 0.188325, "mAP@10": 0.067934}
    assert metrics == pytest.approx(known, abs=5e-7)


def test_a_matrix_with_the_published_ranking_has_the_same_scores(shared_data, write_csv, tmp_path):
    # The first 40 recordings, as a challenge of 200 queries.
    truth = list(read_captions(shared_data / "clotho" / "clotho_captions_evaluation.csv").items())[:40]
    captions, ranked = read_dcase2022(shared_data / "golden_metrics" / "dcase2022_baseline_output.csv")
    captions, ranked = captions[:200], ranked[:200]
    names = sorted({name for found in ranked for name in found} | {name for name, _ in truth})
    scores = np.full((200, len(names)), -1.0)  # what is not among the first ten ties behind them
    for row, found in enumerate(ranked):
        scores[row, [names.index(name) for name in found]] = np.linspace(1, 0, 10)
    write_csv(tmp_path / "truth.csv", CLOTHO, *([name, *texts] for name, texts in truth))
    write_dcase2022(tmp_path / "ranked.csv", captions, ranked)
    write_dcase2025(tmp_path / "matrix.csv", captions, names, scores)
    expected = score_ranked_output(tmp_path / "ranked.csv", tmp_path / "truth.csv")
    assert expected["mAP@10"] > 0
    found = score_matrix(tmp_path / "matrix.csv", tmp_path / "truth.csv")
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_a_matrix_comes_back_as_it_was_written(tmp_path):
    generator = np.random.default_rng(0)
    captions = ['A dog, a "big" one', "Wind über Wasser", "a dog", "a dog"]  # a query that occurs twice has two lines
    names = ["x, y.wav", " Ambience Birds.wav", "a.wav", *(f"{number}.wav" for number in range(200))]
    scores = generator.standard_normal((4, 203)) * 10.0 ** generator.integers(-20, 20, (4, 203))
    scores = scores.astype(np.float32)
    write_dcase2025(tmp_path / "matrix.csv", captions, names, scores)
    found_captions, found_names, found_scores = read_dcase2025(tmp_path / "matrix.csv")
    assert (found_captions, found_names) == (captions, names)
    np.testing.assert_array_equal(found_scores, scores)
    content = (tmp_path / "matrix.csv").read_bytes()
    assert content.startswith(b'index,"x, y.wav", Ambience Birds.wav,a.wav,0.wav,')
    assert b'199.wav\n"A dog, a ""big"" one",' in content
    assert b"\r" not in content
    assert not is_ranked_output(tmp_path / "matrix.csv")


def test_a_matrix_is_scored_against_clothos_captions(tmp_path, write_csv):
    truth = write_csv(
        tmp_path / "truth.csv", CLOTHO, *([name, *(f"{name} {number}" for number in range(5))] for name in NAMES[:2])
    )
    captions = [f"{name} {number}" for name in NAMES[:2] for number in range(5)]
    # the first recording at rank 1 for each of its captions, the second at rank 12, behind mAP@10 and within mAP@16
    scores = np.tile(np.r_[1.0, -1.0, np.linspace(0.9, 0.1, 10)], (10, 1))
    write_dcase2025(tmp_path / "matrix.csv", captions, NAMES, scores)
    expected = {"R@1": 0.5, "R@5": 0.5, "R@10": 0.5, "mAP@10": 0.5, "mAP@16": (1 + 1 / 12) / 2, "MedR": 6.5}
    assert score_matrix(tmp_path / "matrix.csv", truth) == pytest.approx(expected)
    write_dcase2025(tmp_path / "other.csv", captions[::-1], NAMES, scores)
    with pytest.raises(DataError, match="other.csv:2: found the caption 'b.wav 4', expected 'a.wav 0'"):
        score_matrix(tmp_path / "other.csv", truth)
    write_dcase2025(tmp_path / "narrow.csv", captions, NAMES[1:], scores[:, 1:])
    with pytest.raises(DataError, match="narrow.csv: found no column 'a.wav', expected one for each"):
        score_matrix(tmp_path / "narrow.csv", truth)


def test_a_matrix_is_scored_against_annotations_of_several_recordings_a_query(tmp_path, write_csv):
    annotations = write_csv(
        tmp_path / "annotations.csv",
        ["query", "audio_filenames"],
        ["Rain.", "['b.wav', 'd.wav']"],  # ranks 2 and 4: AP (1/2 + 2/4) / 2
        ["A dog", "['a.wav']"],  # rank 1
    )
    scores = np.tile(np.linspace(1, 0, 12), (4, 1))
    scores[3] *= -1  # of equal queries the first counts
    write_dcase2025(tmp_path / "matrix.csv", ["A dog", "not annotated", "Rain.", "A dog"], NAMES, scores)
    metrics = score_matrix(tmp_path / "matrix.csv", annotations)
    assert (metrics["R@1"], metrics["R@5"], metrics["mAP@16"]) == pytest.approx((0.5, 1.0, 0.75))
    write_dcase2025(tmp_path / "other.csv", ["A dog", "Snow"], NAMES, scores[:2])
    with pytest.raises(DataError, match="other.csv: found no line for the query 'Rain.'"):
        score_matrix(tmp_path / "other.csv", annotations)
    write_csv(annotations, ["query", "audio_filenames"], ["Rain.", "__import__('os').getcwd()"])
    with pytest.raises(DataError, match="annotations.csv:2: audio_filenames: found .*expected a list"):
        score_matrix(tmp_path / "matrix.csv", annotations)


def test_a_ranked_output_needs_ten_different_recordings_a_query(tmp_path):
    path = tmp_path / "output.csv"
    write_dcase2022(path, ["a dog"], [NAMES])  # more than ten: the first ten
    assert read_dcase2022(path) == (["a dog"], [NAMES[:10]])
    assert is_ranked_output(path)
    before = path.read_bytes()
    with pytest.raises(RetrievalError, match="found 9 different recordings for the query 'a dog', expected 10"):
        write_dcase2022(path, ["a dog"], [NAMES[:9]])
    with pytest.raises(RetrievalError, match="found 9 different recordings"):
        write_dcase2022(path, ["a dog"], [[*NAMES[:9], NAMES[0]]])
    with pytest.raises(RetrievalError, match="found 1 rankings for 2 queries"):
        write_dcase2022(path, ["a dog", "rain"], [NAMES])
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("names", "scores", "message"),
    [
        (["a.wav", "b.wav"], np.zeros((1, 3)), r"found scores of shape \(1, 3\), expected \(1, 2\)"),
        (["a.wav", "b.wav"], np.zeros((2, 2)), "found 2 rows of scores for 1 queries"),
        (["a.wav", "a.wav"], np.zeros((1, 2)), "found the recording 'a.wav' twice"),
        (["a.wav", "b.wav"], np.array([[0, np.nan]]), "found scores that are not finite"),
    ],
)
def test_a_matrix_that_does_not_fit_is_not_written(tmp_path, names, scores, message):
    with pytest.raises(RetrievalError, match=message):
        write_dcase2025(tmp_path / "matrix.csv", ["a dog"], names, scores)
    assert not (tmp_path / "matrix.csv").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("index,a.wav,b.wav\na dog,0.1\n", "matrix.csv:2: found 1 scores, expected 2"),
        ("index,a.wav,b.wav\na dog,0.1,high\n", "matrix.csv:2: found could not convert .*high"),
        ("index,a.wav,b.wav\na dog,0.1,nan\n", "matrix.csv:2: found a score that is not finite"),
        ("index,a.wav,a.wav\na dog,0.1,0.2\n", "matrix.csv: found the columns a.wav, a.wav, .*no name twice"),
        ("index,a.wav\n", "matrix.csv: found no query"),
        ("", "matrix.csv: found the columns none"),
    ],
)
def test_a_faulty_matrix_is_an_error_that_says_where(tmp_path, content, message):
    (tmp_path / "matrix.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        read_dcase2025(tmp_path / "matrix.csv")


def test_a_recording_twice_in_a_ranked_line_is_an_error_of_the_file(tmp_path, write_csv):
    truth = write_csv(tmp_path / "truth.csv", CLOTHO, ["a.wav", *(f"caption {number}" for number in range(5))])
    rows = [[f"caption {number}", *NAMES[:9], NAMES[0]] for number in range(5)]
    output = write_csv(tmp_path / "output.csv", ["caption", *(f"file_name_{i}" for i in range(1, 11))], *rows)
    with pytest.raises(DataError, match="output.csv: the ranking of query 0 holds an item twice"):
        score_ranked_output(output, truth)


def official_score(truth, output):
    """Return R@1 as eval_script.py in github.com/xieh97/dcase2022-audio-retrieval does.

    It looks captions up by their very text; of equal ones the last counts.
    """
    truth, output = pandas.read_csv(truth), pandas.read_csv(output)
    right = {caption: row.file_name for row in truth.itertuples() for caption in row[2:]}
    found = {row[1]: list(row[2:]) for row in output.itertuples()}
    return np.mean([found[caption][0] == name for caption, name in right.items()])


def test_the_scorers_of_the_challenges_find_every_query_of_the_official_file(shared_data, tmp_path):
    truth = shared_data / "clotho" / "clotho_captions_evaluation.csv"
    evaluated = load_evaluation_set(truth, audio=shared_data / "clotho" / "audio")
    captions, names = evaluated.captions(), [recording.name for recording in evaluated.recordings]
    assert sum(caption != caption.strip() for caption in captions) == 4
    right = [recording.name for recording in evaluated.recordings for _ in recording.captions]
    ranked = [[name, *[other for other in names[:10] if other != name]][:10] for name in right]
    write_dcase2022(tmp_path / "ranked.csv", captions, ranked)
    assert official_score(truth, tmp_path / "ranked.csv") == 1
    assert score_ranked_output(tmp_path / "ranked.csv", truth)["R@1"] == 1
    # The challenge of 2025 finds a query of its annotations by `captions.tolist().index(query)`.
    write_dcase2025(tmp_path / "matrix.csv", captions, names[:3], np.zeros((len(captions), 3)))
    queries = pandas.read_csv(tmp_path / "matrix.csv")["index"].tolist()
    assert queries == captions
    assert "A train coming down the track with cars passing by on the side of it, " in queries


def test_an_output_whose_captions_lost_their_spaces_is_scored_all_the_same(tmp_path, write_csv):
    texts = ["a dog ", " two dogs", "A bell, ", "rain", "wind"]
    truth = write_csv(tmp_path / "truth.csv", CLOTHO, ["a.wav", *texts])
    write_dcase2022(tmp_path / "ranked.csv", [text.strip() for text in texts], [NAMES] * 5)
    assert score_ranked_output(tmp_path / "ranked.csv", truth)["R@1"] == 1


def test_files_of_different_challenges_are_named_with_what_belongs_together(tmp_path, write_csv):
    texts = [f"caption {number}" for number in range(5)]
    truth = write_csv(tmp_path / "truth.csv", CLOTHO, ["a.wav", *texts])
    annotations = write_csv(tmp_path / "annotations.csv", ["query", "audio_filenames"], ["caption 0", "['a.wav']"])
    other = write_csv(tmp_path / "other.csv", ["audiocap_id", "youtube_id", "caption"], ["1", "x", "a dog"])
    write_dcase2022(tmp_path / "ranked.csv", texts, [NAMES] * 5)
    write_dcase2025(tmp_path / "matrix.csv", texts, NAMES, np.zeros((5, 12)))
    together = (
        "expected two files that belong together: a ranked output of DCASE 2022 .* with a caption file .*; a matrix"
    )
    for score, output, captions, found in (
        (score_ranked_output, "ranked", annotations, "a ranked output of DCASE 2022 .* and annotations of DCASE 2025"),
        (score_ranked_output, "ranked", other, "and a table of the columns audiocap_id, youtube_id, caption"),
        (score_ranked_output, "ranked", tmp_path / "matrix.csv", "and a table of the columns index, a.wav, .*, ..."),
        (
            score_matrix,
            "matrix",
            other,
            "found a table of the columns index, .* and a table of the columns audiocap_id",
        ),
        (score_matrix, "truth", tmp_path / "ranked.csv", "found a caption file .* and a ranked output of DCASE 2022"),
        (score_matrix, "annotations", truth, "found annotations of DCASE 2025 .* and a caption file"),
    ):
        with pytest.raises(DataError, match=f"{found}.*{together}"):
            score(tmp_path / f"{output}.csv", captions)
    write_csv(annotations, ["query", "audio_filenames"], ["another caption", "['a.wav']"])
    with pytest.raises(DataError, match="no line for the query 'another caption' .*; give the two files of one"):
        score_matrix(tmp_path / "matrix.csv", annotations)
