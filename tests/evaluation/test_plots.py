"""The pictures are whole PNG files and show what they claim."""

import dataclasses

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.image import imread
from matplotlib.text import Text

import plots
from demo import gallery
from demo.gallery import plot_gallery
from modeling_cnn10bert.evaluation.plots import _training_figure, plot_training_curve

TRAIN = [
    {"step": s, "epoch": s / 10, "loss": 3 - s / 20, "learning_rate": 1e-4 / s, "grad_norm": 1} for s in range(5, 45, 5)
]
EVAL = [
    {
        "step": 10 * e,
        "epoch": float(e),
        "eval_loss": 2.5,
        "eval_mAP@10": m,
        "eval_R@1": m / 2,
        "eval_R@5": m,
        "eval_R@10": 2 * m,
    }
    for e, m in zip(range(1, 5), (0.1, 0.2, 0.3, 0.25), strict=True)
]
SUMMARY = [{"step": 40, "epoch": 4.0, "train_runtime": 9.0, "train_loss": 2.0}]


def hit(**changes):
    fields = {
        "file_name": "dog.wav",
        "score": 0.5,
        "seconds": 2.0,
        "correct": True,
        "captions": ["A dog barks.", "Wuff."],
    }
    return fields | {"log_mel": np.random.default_rng(0).uniform(-90, 10, (200, 64))} | changes


def labels(ax):
    return [line.get_label() for line in ax.get_lines()]


def texts(figure):
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def test_a_training_curve_shows_losses_learning_rate_and_metrics_over_epochs():
    figure = _training_figure(TRAIN + EVAL + SUMMARY)
    losses, metrics, rate = figure.axes
    assert labels(losses) == ["training loss", "validation loss"]
    assert labels(rate) == ["learning rate"]
    assert labels(metrics) == ["mAP@10", "R@1", "R@5", "R@10", "best: 0.3000 at epoch 3"]
    assert (metrics.get_xlabel(), losses.get_ylabel(), rate.get_ylabel()) == ("epoch", "loss", "learning rate")
    np.testing.assert_array_equal(metrics.get_lines()[0].get_xydata(), [[1, 0.1], [2, 0.2], [3, 0.3], [4, 0.25]])
    np.testing.assert_allclose(losses.get_lines()[0].get_xdata(), [e["epoch"] for e in TRAIN])


def test_the_chance_level_is_drawn_where_it_is_known():
    figure = _training_figure([entry | {"eval_chance_mAP@10": 0.01} for entry in EVAL])
    line = next(line for line in figure.axes[1].get_lines() if line.get_label() == "mAP@10 by chance")
    assert set(line.get_ydata()) == {0.01}


@pytest.mark.parametrize(
    ("history", "titles"),
    [
        (TRAIN + SUMMARY, ["Training"]),
        ([{k: v for k, v in entry.items() if k != "eval_loss"} for entry in EVAL], ["Validation"]),
        (EVAL, ["Training", "Validation"]),
        ([{"step": 1, "loss": 2.0}], ["Training"]),
        ([{"step": 1, "epoch": 0.1, "learning_rate": 0.0}], ["Training"]),
        ([{"step": 1, "epoch": 0.1, "eval_mAP@10": float("nan")}], ["Validation"]),
        (SUMMARY, [""]),
        ([], [""]),
    ],
)
@pytest.mark.filterwarnings("error::UserWarning")
def test_a_training_curve_leaves_out_what_was_not_logged(history, titles, tmp_path):
    axes = [ax for ax in _training_figure(history).axes if ax.get_ylabel() != "learning rate"]
    assert [ax.get_title(loc="left") for ax in axes] == titles
    plot_training_curve(history, tmp_path / "curve.png")
    assert imread(tmp_path / "curve.png").shape[1] == 990


def test_without_epochs_the_steps_are_the_axis():
    figure = _training_figure([{"step": 3, "loss": 2.0}, {"step": 6, "loss": 1.0}])
    assert figure.axes[0].get_xlabel() == "step"
    assert list(figure.axes[0].get_lines()[0].get_xdata()) == [3, 6]


def test_a_gallery_has_a_row_a_question_and_the_best_three_hits_in_it():
    questions = ["a dog", "rain on a roof"]
    hits = [hit(file_name=f"{i}.wav", score=0.9 - i / 10) for i in range(5)]
    figure = gallery._gallery_figure(questions, [hits, hits[:1]])
    assert len(figure.axes) == 8
    assert [len(ax.images) for ax in figure.axes] == [0, 1, 1, 1, 0, 1, 0, 0]
    assert [ax.get_title(loc="left") for ax in figure.axes[1:4]] == ["1. 0.wav", "2. 1.wav", "3. 2.wav"]
    assert [ax.get_title(loc="right") for ax in figure.axes[1:4]] == ["0.900 ✓", "0.800 ✓", "0.700 ✓"]
    assert figure.axes[1].get_xlabel().strip() == "A dog barks."
    assert [figure.axes[i].texts[0].get_text() for i in (0, 4)] == questions


def test_a_log_mel_is_shown_with_time_rightwards_and_low_bands_below():
    log_mel = np.full((100, 64), -60.0)
    log_mel[10, 3] = 0.0
    image = gallery._gallery_figure(["q"], [[hit(log_mel=log_mel, seconds=1.0)]]).axes[1].images[0]
    assert np.argwhere(image.get_array() == 0).tolist() == [[3, 10]]  # [band, frame]
    assert image.origin == "lower"
    assert tuple(image.get_extent()) == (0, 1.0, 0, 64)
    assert image.get_clim() == (-80, 0)


@pytest.mark.parametrize(
    ("correct", "color", "mark"),
    [(True, "green", "✓"), (np.bool_(False), "red", "✗"), (None, "grey", "0.500")],
)
def test_the_frame_tells_right_from_wrong(correct, color, mark):
    ax = gallery._gallery_figure(["q"], [[hit(correct=correct)]]).axes[1]
    (edge,) = {to_hex(spine.get_edgecolor()) for spine in ax.spines.values()}
    red, green, blue = (int(edge[i : i + 2], 16) for i in (1, 3, 5))
    seen = "grey" if red == green == blue else "green" if green > 1.5 * red else "red" if red > 1.5 * green else edge
    assert seen == color
    assert ax.get_title(loc="right").endswith(mark)


def test_a_hit_may_be_a_dataclass():
    cls = dataclasses.make_dataclass("Hit", hit())
    figure = gallery._gallery_figure(["q"], [[cls(**hit(captions=[]))]])
    assert figure.axes[1].get_xlabel().strip() == "(no caption)"


@pytest.mark.filterwarnings("error::UserWarning")
def test_long_texts_overlap_nothing():
    long = hit(
        file_name="FREEZER_DOOR_OPEN_CLOSE_AND_OPEN_AGAIN_TAKE_7.WAV", captions=["costs $5 and $6 " * 20], seconds=30.0
    )
    figure = gallery._gallery_figure(["what costs $5 and ^2? " * 20], [[long] * 3])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    boxes = [ax.get_tightbbox(renderer) for ax in figure.axes]
    assert not any(a.x0 < b.x1 and b.x0 < a.x1 for i, a in enumerate(boxes) for b in boxes[:i])
    assert any(text.endswith("TAKE_7.WAV") for text in texts(figure))
    for ax in figure.axes[1:]:
        name, score = ax._left_title.get_window_extent(renderer), ax._right_title.get_window_extent(renderer)
        assert name.x1 < score.x0


def test_pictures_are_whole_pngs_of_a_reasonable_size_and_leave_nothing_else(tmp_path):
    folder = tmp_path / "new folder"
    plot_training_curve(TRAIN + EVAL, folder / "curve.png")
    plot_gallery(["a dog", "rain"], [[hit()] * 3, [hit(correct=False)] * 3], str(folder / "gallery.png"))
    plot_gallery(["a dog"], [[]], folder / "gallery.png")  # written over
    assert sorted(path.name for path in folder.iterdir()) == ["curve.png", "gallery.png"]
    for path in folder.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        height, width = imread(path).shape[:2]
        assert 200 < height < 1200
        assert 900 < width < 1600
        assert path.stat().st_size < 2_000_000


def test_a_picture_that_fails_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "curve.png"
    path.write_bytes(b"old")

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        plot_training_curve(TRAIN, path)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize(
    ("questions", "results", "message"),
    [
        ([], [], "0 questions"),
        (["a", "b"], [[]], "got 1 lists of hits for 2 questions"),
        (["a"], [[hit(log_mel=np.zeros(64))]], r"log_mel of 'dog.wav' has shape \(64,\)"),
    ],
)
def test_a_gallery_that_does_not_fit_is_an_error(questions, results, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        plot_gallery(questions, results, tmp_path / "gallery.png")


# ------------------------------------------------------------------------------------------------- augmentations

SENTENCES = {
    "Original": (["a", "dog", "$barks$"], ["a", "dog", "$barks$"]),
    "Insert": (["a", "dog", "$barks$"], ["a", "tree", "dog", "$barks$"]),
    "Swap": (["a", "dog", "$barks$"], ["a", "$barks$", "dog"]),
}


def test_augmentations_share_the_scale_of_the_original_and_name_what_was_done(tmp_path):
    original = np.random.default_rng(0).uniform(-90, 10, (50, 64))
    log_mels = {"dog.wav": original, "Gain (g_max 3)": original + 3}
    figure = plots._augmentation_figure(log_mels, SENTENCES)
    first, second, *_ = figure.axes
    assert [ax.get_title(loc="left") for ax in (first, second)] == list(log_mels)
    assert first.images[0].get_clim() == second.images[0].get_clim() == (original.max() - 80, original.max())
    np.testing.assert_array_equal(second.images[0].get_array(), (original + 3).T)
    assert set(SENTENCES) <= set(texts(figure))
    plots.plot_augmentations(log_mels, SENTENCES, tmp_path / "new" / "picture.png")
    assert imread(tmp_path / "new" / "picture.png").shape[2] == 4
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["picture.png"]


def test_words_that_came_and_went_stand_out():
    figure = plots._augmentation_figure({"dog.wav": np.zeros((50, 64))}, SENTENCES)
    words = [text for text in figure.findobj(Text) if text.get_text()]
    new = [word.get_text() for word in words if word.get_color() == plots._RIGHT]
    gone = [word.get_text().replace("\u0336", "") for word in words if word.get_color() == plots._WRONG]
    assert new[0] == "tree" and len(new) == 2
    assert gone == new[1:]  # a swap is shown as one word that moved


# ------------------------------------------------------------------------------------------------------- comparison


def test_a_comparison_shows_mean_deviation_and_every_run(tmp_path):
    settings = {
        "without": {"eval_mAP@10": [0.5, 0.6, 0.7], "test_mAP@10": [0.4]},
        "with": {"eval_mAP@10": [0.8, 0.8], "test_mAP@10": [0.6]},
    }
    figure = plots._comparison_figure(settings)
    (ax,) = figure.axes
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], [0.6, 0.4, 0.8, 0.6])
    bars = [segment[:, 1] for collection in ax.collections for segment in collection.get_segments()]
    np.testing.assert_allclose(bars[0], [0.5, 0.7])  # the sample's standard deviation of 0.5, 0.6, 0.7 is 0.1
    assert {"without", "with", "eval_mAP@10", "test_mAP@10", "0.600", "0.800"} <= set(texts(figure))
    plots.plot_comparison(settings, tmp_path / "comparison.png")
    assert imread(tmp_path / "comparison.png").ndim == 3


# ------------------------------------------------------------------------------------------------------------ table


def test_a_table_shows_mean_deviation_every_run_and_what_the_paper_has(tmp_path):
    rows = {"baseline": [0.11, 0.13], "+ more": [0.24], "+ most": []}
    figure = plots._table_figure(rows, {"baseline": 12.53, "+ most": 24.57}, "mAP@10")
    (ax,) = figure.axes
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], [12, 24])
    lines = [segment for collection in ax.collections for segment in collection.get_segments()]
    # The deviation of 11 and 13 is the root of 2; one run has no error bar.
    spans = [[12 - 2**0.5, 12 + 2**0.5], [12.53, 12.53], [24.57, 24.57]]
    np.testing.assert_allclose([line[:, 0] for line in lines], spans)
    assert {"12.00 ± 1.41", "24.00", "no run", "the paper", "baseline", "+ more", "+ most"} <= set(texts(figure))
    assert ax.get_ylim() == (2.6, -0.6)  # the first row on top, the last one's place whole
    assert "the paper" not in texts(plots._table_figure(rows, {}, "mAP@10"))
    assert "mean and standard deviation" in texts(figure)
    assert "mean and standard deviation" not in texts(plots._table_figure({"baseline": [0.1]}, {}, "mAP@10"))
    plots.plot_table(rows, {}, "mAP@10", tmp_path / "table.png")
    assert imread(tmp_path / "table.png").ndim == 3


@pytest.mark.filterwarnings("error::UserWarning")
def test_the_figures_of_a_table_stand_inside_its_axes():
    figure = plots._table_figure({"a long name of a row": [0.5, 0.9, 0.99]}, {"a long name of a row": 99.5}, "R@10")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (ax,) = figure.axes
    assert ax.texts[0].get_window_extent().x1 < ax.get_window_extent().x1
