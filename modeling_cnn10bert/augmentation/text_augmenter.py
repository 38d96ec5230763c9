"""Any text augmenter that a recipe names, such as a flow of nlpaug, applied with keyed random draws."""

import contextlib
import importlib
import inspect
import os
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from ..errors import RecipeError, one_line
from ..processing_cnn10bert import caption_words


class Augmenter(Protocol):
    """Augmenters and flows of nlpaug, and anything else with their method."""

    def augment(self, data: str) -> Any: ...


class TextAugmenter:
    """
    Apply an augmenter to captions, with all its draws from the given generator.

    nlpaug draws from the global states of `random` and `numpy.random`. They are seeded for the call, as torch's is, and
    restored afterwards. So a draw does not depend on earlier ones, on the worker or on a resume, and shifts no other.

    Args:
        name: of the augmenter, for errors.
        augmenter: its `augment` returns a text, or a list that begins with one.
    """

    def __init__(self, name: str, augmenter: Augmenter):
        self.name, self.augmenter = name, augmenter

    def __call__(self, caption: str, rng: np.random.Generator) -> str:
        """
        Return the augmented caption, or the caption itself if nothing or a text without a word comes back.

        Raises:
            RecipeError: the augmenter fails, or returns anything but texts.
        """
        with global_seeds(rng):
            try:
                found = self.augmenter.augment(caption)
            except Exception as error:  # whatever the augmenter's code raises
                raise RecipeError(
                    f"field text_augmenter is {self.name}: it failed at the caption {caption!r} "
                    f"({type(error).__name__}: {one_line(error)}); correct it, or leave the field out"
                ) from error
        text = found
        while isinstance(text, list | tuple):  # of nlpaug, a list of one text; nested by some of its flows
            text = text[0] if text else None
        if not isinstance(text, str | None):
            raise RecipeError(
                f"field text_augmenter is {self.name}: it returned {str(found)[:100]!r} ({type(found).__name__}) for "
                f"the caption {caption!r}, expected a text or a list of texts"
            )
        return text if text and caption_words(text) else caption


@contextlib.contextmanager
def global_seeds(rng: np.random.Generator) -> Iterator[None]:
    """Seed the global generators of Python, numpy and torch (CPU) from a generator, and restore their states."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed = rng.integers(2**32, size=4, dtype=np.uint32)
    random.seed(seed.tobytes())
    np.random.seed(seed)
    torch.default_generator.manual_seed(int(seed[0]))
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def load_text_augmenter(
    name: str, captions: Sequence[str], back_translations: Mapping[str, Sequence[str]]
) -> TextAugmenter:
    """
    Import an augmenter by its name, from the installed packages or the working directory.

    Args:
        name: `MODULE:NAME` of an object with the method `augment`, or of a function or class that makes one. Of
            parameters `captions` and `back_translations`, it is given those that it has.
        captions: the distinct captions of the training set.
        back_translations: caption -> its back-translations.

    Raises:
        RecipeError: there is no such augmenter, it cannot be imported or made, or it fails at the first caption.
    """
    field = f"field text_augmenter is {name!r}"
    module_name, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:  # the command `cnn10bert` starts without it
        sys.path.append(os.getcwd())
    try:
        found = importlib.import_module(module_name)
    except Exception as error:  # whatever the module's code raises
        raise RecipeError(
            f"{field}: the module {module_name} cannot be imported ({type(error).__name__}: {one_line(error)}); "
            "expected an installed module, or one in the working directory or the recipe's folder"
        ) from error
    try:
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        raise RecipeError(f"{field}: found no {attribute} in {module_name} ({error}); correct the name") from error
    if callable(found) and (inspect.isclass(found) or not hasattr(found, "augment")):
        given = {"captions": captions, "back_translations": back_translations}
        try:
            asked = inspect.signature(found).parameters
            found = found(**{parameter: value for parameter, value in given.items() if parameter in asked})
        except Exception as error:
            raise RecipeError(
                f"{field}: it could not be made ({type(error).__name__}: {one_line(error)}); expected a function "
                "without parameters, or with captions or back_translations"
            ) from error
    if not callable(getattr(found, "augment", None)):
        raise RecipeError(
            f"{field}: found {str(found)[:100]!r} ({type(found).__name__}), which has no method augment; expected an "
            "augmenter or a flow of nlpaug, or a function that returns one"
        )
    augmenter = TextAugmenter(name, found)
    for caption in captions[:1]:  # an augmenter that always fails does so here, and not in a data loader's worker
        augmenter(caption, np.random.default_rng(0))
    return augmenter
