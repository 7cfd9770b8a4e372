"""Where pretrained weights lie, for who has to fetch them by hand: file, page and place."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlparse
from urllib.request import getproxies

HUB = "https://huggingface.co"
WEIGHTS, SETTINGS = "model.safetensors", "config.json"
# OWNER/NAME, as the hub allows it; a path has other letters, or more of them.
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def from_hub(name: str, key: str) -> str:
    """Say how a network of transformers comes from the Hugging Face hub; "" for a path.

    Args:
        name: on the hub, or NAME@REVISION.
        key: of the config, that takes a folder.
    """
    repository, _, revision = name.partition("@")
    if not _REPOSITORY.fullmatch(repository) or Path(name).exists():
        return ""
    page = f"{HUB}/{repository}/tree/{quote(revision or 'main', safe='')}"
    return (
        f"get {SETTINGS} and {WEIGHTS} from {page}, put both into one folder, and set {key}=FOLDER"
    )


def from_timm(name: str, key: str = "") -> str:
    """Say how weights of timm come; "" where timm knows of none.

    Args:
        name: of the network, with or without a tag.
        key: of the config, that takes timm's safetensors files; "" where none does.
    """
    import timm

    found = timm.get_pretrained_cfg(name)
    if found is None or not (found.hf_hub_id or found.url):
        return ""
    if not found.hf_hub_id:
        return in_torch_cache(str(found.url))
    return _one_file(str(found.hf_hub_id), key) if key else _cached(str(found.hf_hub_id))


def from_smp(encoder: str, weights: str, key: str) -> str:
    """Say how weights of segmentation-models-pytorch come to be a file; "" for unknown ones.

    Args:
        encoder: `tu-...` and some of `timm-...` are timm's.
        weights: such as `imagenet`.
        key: of the config, that takes a safetensors file.
    """
    if encoder.startswith("tu-"):
        return from_timm(encoder.removeprefix("tu-"), key)
    from segmentation_models_pytorch.encoders import encoders

    settings: dict[str, Any] = encoders.get(encoder, {}).get("pretrained_settings", {})
    repository = settings.get(weights, {}).get("repo_id")
    return _one_file(str(repository), key) if repository else ""


def in_torch_cache(url: str) -> str:
    """Say where PyTorch looks for a file before it downloads it."""
    from torch import hub

    name = Path(urlparse(url).path).name
    return f"get {url} and put it at {Path(hub.get_dir()) / 'checkpoints' / name}"


def _one_file(repository: str, key: str) -> str:
    return f"get {WEIGHTS} from {HUB}/{repository}/tree/main, and set {key}=FOLDER/{WEIGHTS}"


def _cached(repository: str) -> str:
    return (
        f"get {WEIGHTS} from {HUB}/{repository}/tree/main by `hf download {repository} "
        f"{WEIGHTS}` where there is a network, and copy that computer's Hugging Face cache"
    )


@contextmanager
def quiet_hub(*, fetches: bool = True) -> Iterator[None]:
    """Keep the hub's client from announcing every retry, and from retrying where nothing answers.

    Without a network it takes what was fetched before, or says at once that it cannot; by itself
    it tries six times, for 23 seconds a file.

    Args:
        fetches: whether something may be fetched; else nobody is asked for the hub's address.
    """
    from huggingface_hub import constants

    logger = logging.getLogger("huggingface_hub")
    level, was_offline = logger.level, constants.HF_HUB_OFFLINE
    logger.setLevel(logging.ERROR)
    if fetches and not _is_within_reach(constants.ENDPOINT):
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = was_offline
        logger.setLevel(level)


def _is_within_reach(url: str) -> bool:
    """Tell whether a server's address can be found out; a proxy would do it for us."""
    parts = urlparse(url)
    if getproxies().get(parts.scheme):
        return True
    try:
        socket.getaddrinfo(parts.hostname, parts.port or 443)
    except OSError:
        return False
    return True
