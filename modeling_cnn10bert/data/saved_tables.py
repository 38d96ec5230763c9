"""Load data sets that `save_to_disk` of datasets wrote, and report files that were cut off or edited."""

import os

import datasets

from ..errors import DataError


def without_decoding(table: datasets.Dataset) -> datasets.Dataset:
    """Return `Audio` columns as `{"bytes", "path"}`, because their decoding by datasets needs torchcodec and FFmpeg."""
    for name, feature in table.features.items():
        if isinstance(feature, datasets.Audio) and feature.decode:
            # The data stay the same, and so does the fingerprint, which feature caches are found by.
            table = table.cast_column(name, datasets.Audio(decode=False), new_fingerprint=table._fingerprint)
    return table


def load_saved(folder: str | os.PathLike) -> datasets.DatasetDict | datasets.Dataset:
    """
    Load a data set that was saved in a folder.

    Raises:
        DataError: a file of it is missing or damaged.
    """
    try:
        return datasets.load_from_disk(folder)
    except MemoryError:
        raise
    except IndexError as error:  # of `load_from_disk`, which reads no table without rows
        raise DataError(
            f"found a split without a recording in {folder}, expected at least one in each; save the set without it"
        ) from error
    except Exception as error:  # whatever datasets and pyarrow raise at what these files hold
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise DataError(
            f"{folder}: found a data set with a file that is missing or damaged ({reason}), expected it as it was "
            "saved; delete the folder and run the command that writes it again"
        ) from error
