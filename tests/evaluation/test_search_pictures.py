"""The pictures of a search are whole PNG files and show what they claim."""

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from modeling_cnn10bert.evaluation import search_pictures
from modeling_cnn10bert.evaluation.search_pictures import plot_importance, plot_search_history, plot_slices

VALUES = {0: 0.2, 1: 0.1, 3: 0.3, 4: 0.25}  # trial 2 failed
DRAWN = {"p_eda": [0.1, 0.2, 0.9, 0.8], "n_f": [0, 1, 1, 0]}
LIMITS = {"p_eda": (0.0, 1.0), "n_f": (0, 1)}


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, beside being written."""
    drawn, save = [], search_pictures.save_figure

    def keep(figure, path):
        drawn.append(figure)
        save(figure, path)

    monkeypatch.setattr(search_pictures, "save_figure", keep)
    return drawn


def test_the_history_shows_each_trial_and_the_best_so_far(figures, tmp_path):
    plot_search_history(VALUES, [2], tmp_path / "history.png")
    trials, best, star, failed = figures[0].axes[0].get_lines()
    assert trials.get_xydata().tolist() == [[0, 0.2], [1, 0.1], [3, 0.3], [4, 0.25]]
    assert best.get_ydata().tolist() == [0.2, 0.2, 0.3, 0.3]
    assert star.get_xydata().tolist() == [[3, 0.3]] and "0.3000, trial 3" in star.get_label()
    assert failed.get_xdata().tolist() == [2]
    assert imread(tmp_path / "history.png").std() > 0.05


def test_a_slice_shows_the_values_over_what_each_trial_drew(figures, tmp_path):
    plot_slices(VALUES, DRAWN, LIMITS, tmp_path / "slices.png")
    assert isinstance(figures[0], Figure)
    panels = {ax.get_xlabel(): ax for ax in figures[0].axes if ax.get_xlabel()}
    assert panels.keys() == DRAWN.keys()
    for name, ax in panels.items():
        expected = [list(point) for point in zip(DRAWN[name], VALUES.values(), strict=True)]
        assert ax.collections[0].get_offsets().tolist() == expected
        assert ax.get_xlim()[0] < LIMITS[name][0] and ax.get_xlim()[1] > LIMITS[name][1]
    assert imread(tmp_path / "slices.png").std() > 0.05


def test_a_search_of_one_trial_has_its_pictures_too(tmp_path):
    plot_search_history({0: 0.2}, [], tmp_path / "history.png")
    plot_slices({0: 0.2}, {"p_eda": [0.5]}, LIMITS, tmp_path / "slices.png")
    assert (tmp_path / "history.png").exists() and (tmp_path / "slices.png").exists()


def test_the_most_important_stands_on_top(figures, tmp_path):
    plot_importance({"n_f": 0.2, "p_eda": 0.7, "w_t": 0.1}, 40, tmp_path / "importance.png")
    ax = figures[0].axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["w_t", "n_f", "p_eda"]
    assert [bar.get_width() for bar in ax.patches] == [0.1, 0.2, 0.7]
    assert "40 trials" in ax.get_xlabel()
