"""Open an adapter, which holds changes to another model: the base that it was trained on."""

import json
import os
import warnings
from pathlib import Path
from typing import Any

from .errors import RetrievalError, one_line

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # as PEFT names them
BASE_FIELD = "base_model_name_or_path"


def adapter_base(folder: str | os.PathLike) -> str | None:
    """
    Return the folder or Hub id of an adapter's base, or `None` if the folder does not hold an adapter.

    A base that was moved together with its run is found next to the adapter.
    """
    path = Path(folder) / ADAPTER_CONFIG
    if not path.is_file() or (Path(folder) / "config.json").exists():
        return None
    base = json.loads(path.read_text(encoding="utf-8")).get(BASE_FIELD)
    moved = Path(folder).parent / Path(base or "").name
    return str(moved) if base and not os.path.isdir(base) and moved.is_dir() else base


def merge_adapter(base: Any, folder: str | os.PathLike) -> Any:
    """
    Add the changes of an adapter to the weights of its base, and return the base.

    Raises:
        RetrievalError: PEFT is not installed, or the adapter does not fit the base.
    """
    try:
        from peft import PeftModel
    except ImportError as error:
        raise RetrievalError(
            f'{folder} is an adapter, which needs peft, not installed here; install it: pip install "cnn10bert[lora]"'
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Found missing adapter keys")  # they would stay random
            return PeftModel.from_pretrained(base, folder).merge_and_unload()
    except Exception as error:  # PEFT raises whatever its files lead to
        raise RetrievalError(
            f"{folder}: found an adapter that does not fit its base ({one_line(error)[:300]}), expected the base that "
            f"it was trained on; correct {BASE_FIELD} in its {ADAPTER_CONFIG}"
        ) from error


__all__ = ["adapter_base", "merge_adapter"]
