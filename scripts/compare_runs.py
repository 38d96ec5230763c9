"""Compare settings trained with several seeds by mean and standard deviation, as a table and as a chart.

    python scripts/compare_runs.py "NAME=RUN RUN RUN" "OTHER NAME=RUN RUN RUN" [--metrics eval_mAP@10 test_mAP@10]

A RUN is the output folder of train_retrieval.py. The standard deviation is that of a sample (n - 1).
"""

import argparse
import sys
from pathlib import Path

from modeling_cnn10bert.evaluation.reports import mean_and_deviation, read_results
from plots import plot_comparison


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="+", metavar="NAME=RUN ...", help="a setting and the folders of its runs")
    parser.add_argument("--metrics", nargs="+", default=["eval_mAP@10", "test_mAP@10", "test_R@1", "test_R@10"])
    parser.add_argument("--output", type=Path, default=Path("comparison.png"), help="the chart")
    options = parser.parse_args()
    settings = dict(_read(setting, options.metrics) for setting in options.settings)
    print(f"{'':40}" + "".join(f"{metric:>20}" for metric in options.metrics))
    for name, metrics in settings.items():
        cells = ["{:.3f} ± {:.3f}".format(*mean_and_deviation(values)) for values in metrics.values()]
        runs = len(next(iter(metrics.values())))
        print(f"{f'{name} ({runs} runs)':40}" + "".join(f"{cell:>20}" for cell in cells))
    plot_comparison(settings, options.output)
    print(options.output)


def _read(setting: str, metrics: list[str]) -> tuple[str, dict[str, list[float]]]:
    """Parse `NAME=RUN ...` and read the values of each metric in the runs."""
    name, equals, runs = setting.partition("=")
    if not equals or not runs.split():
        raise ValueError(f"found the setting {setting!r}, expected NAME=RUN RUN ...")
    results = [read_results(run, metrics) for run in runs.split()]
    return name, {metric: [result[metric] for result in results] for metric in metrics}


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"error: {error}")
