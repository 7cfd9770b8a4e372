"""Networks and weights of Hugging Face's transformers: quiet, and safetensors alone."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub.errors import StrictDataclassError

from converters.errors import one_line
from zoo.families.downloads import from_hub, quiet_hub

Info = dict[str, Any]
# Transformers' beginnings of class names -> what people call these networks.
_SPELLING = {"Segformer": "SegFormer", "UperNet": "UPerNet", "Beit": "BEiT"}


def load_pretrained(cls: Any, name: str, remedy: str, **further: Any) -> tuple[Any, Info]:
    """Return a network with pretrained weights, and which of them it lacked or could not take.

    Args:
        cls: transformers' class of the network.
        name: folder, or name on the hub, where `NAME@REVISION` takes a revision.
        remedy: what to set instead, for the message.
        further: arguments of `from_pretrained`.

    Raises:
        ValueError: the weights cannot be had, are not safetensors, or are of a network with other
            dimensions.
    """
    is_here = Path(name).exists()
    repository, _, revision = (name, "", "") if is_here else name.partition("@")
    if revision:
        further["revision"] = revision
    try:
        with quiet(), quiet_hub(fetches=not is_here):
            network, info = cls.from_pretrained(
                repository,
                ignore_mismatched_sizes=True,
                use_safetensors=True,
                output_loading_info=True,
                **further,
            )
    except StrictDataclassError as error:
        raise ValueError(
            f"pretrained '{name}': expected a {_kind(cls)}'s dimensions, found others: "
            f"{one_line(error):.160}"
        ) from None
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"pretrained '{name}': could not get this {_kind(cls)} (config.json, "
            "model.safetensors); run once with a network connection, "
            f"{from_hub(name, 'pretrained') or 'give a folder that has it'}, or set {remedy}: "
            f"{type(error).__name__}: {one_line(error):.160}"
        ) from None
    return network, info


def _kind(cls: Any) -> str:
    """What people call the networks of a class."""
    start = cls.__name__.partition("For")[0]
    return _SPELLING.get(start, start)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the list of layers that start at random off the screen; the head always does."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity(logging.ERROR)
    transformers.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(level)
        transformers.logging.enable_progress_bar()
