"""Converts PANNs' Cnn10, trained for tagging on AudioSet, to a model that training starts from.

    python scripts/convert_panns_checkpoint.py OUT                downloads the published checkpoint (25 MB) from Zenodo
    python scripts/convert_panns_checkpoint.py CHECKPOINT OUT     converts a checkpoint at hand

A recipe takes OUT as its `audio_model_name_or_path`; `AutoModelForAudioClassification.from_pretrained(OUT)` is the
tagger. `--labels class_labels_indices.csv`, AudioSet's list of classes, gives its classes their names.
"""

import argparse
from pathlib import Path

from modeling_cnn10bert.data.recipes.audioset import read_class_names
from modeling_cnn10bert.training import panns
from modeling_cnn10bert.training.command_line import run


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", type=Path, metavar="CHECKPOINT", help="by default, downloaded")
    parser.add_argument("out", type=Path, metavar="OUT", help="new folder of the model")
    parser.add_argument("--labels", type=Path, metavar="CSV", help="AudioSet's class_labels_indices.csv")
    parser.add_argument("--mirror", default=panns.MIRROR, metavar="URL", help="server that has Zenodo's files")
    args = parser.parse_intermixed_args(argv)

    panns.require_free(args.out)  # before the download, not after it
    class_names = read_class_names(args.labels) if args.labels else None
    checkpoint = args.checkpoint or panns.fetch_checkpoint(panns.default_folder(), args.mirror)
    model, feature_extractor = panns.convert_state(panns.read_checkpoint(checkpoint), checkpoint, class_names)
    panns.save_whole(model, feature_extractor, args.out, panns.data_facts(checkpoint))
    widths = ", ".join(map(str, model.config.hidden_sizes))
    print(f"{args.out}: PANNs' Cnn10 of {checkpoint}, blocks of {widths} channels, {model.num_labels} classes")


if __name__ == "__main__":
    run(main)
