"""Weights on disk, as safetensors: names, numbers, and nothing that runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from converters.files.atomic import unfinished

# Inside a run folder.
FOLDER = "checkpoints"
BEST = f"{FOLDER}/best.safetensors"
LAST = f"{FOLDER}/last.safetensors"
RESUME = f"{FOLDER}/last.ckpt"


def save_weights(network: nn.Module, path: Path, about: Mapping[str, str] | None = None) -> None:
    """Write a network's weights; the file is there as a whole or as it was before.

    Args:
        network: its `state_dict` is written.
        path: the file.
        about: further texts that go with the weights, such as the epoch.
    """
    write_weights({k: v.detach().cpu() for k, v in network.state_dict().items()}, path, about)


def write_weights(
    tensors: Mapping[str, torch.Tensor], path: Path, about: Mapping[str, str] | None = None
) -> None:
    """Write name -> tensor, which `read_weights` reads; else as `save_weights`."""
    # Copies: safetensors refuses tensors that share memory.
    plain = {k: v.clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    with unfinished(path) as place:
        save_file(plain, place, {"format": "pt", **(about or {})})
        _order_texts(place)
        # safetensors writes for the owner alone; a run folder may be a team's.
        place.chmod(0o644)


def _order_texts(path: Path) -> None:
    """Put the texts of a safetensors file in alphabetical order.

    safetensors writes them in a random one; the same weights are to be the same file.
    """
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
        # Spaces at the end are part of the format: the tensors begin at a multiple of eight.
        if len(text) <= length:
            file.seek(8)
            file.write(text.ljust(length))


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read name -> tensor.

    Raises:
        ValueError: no such file, or not a whole safetensors file.
    """
    if not path.is_file():
        raise ValueError(f"{path}: expected a safetensors file, found none")
    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise ValueError(f"{path}: expected a whole safetensors file, found: {error}") from None


def read_about(path: Path) -> dict[str, str]:
    """Read the texts that `save_weights` was given; empty where the file is missing or broken."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError):
        return {}


def load_weights(network: nn.Module, path: Path) -> None:
    """Read a file's weights into a network; half precision becomes the network's own.

    Raises:
        ValueError: not a safetensors file, or the weights of another network: the first
            difference in names or shapes.
    """
    found = read_weights(path)
    check_alike(found, network.state_dict(), path)
    network.load_state_dict(found)


def check_alike(
    found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], path: Path
) -> None:
    """Make sure that a file's weights have the names and shapes of others.

    Raises:
        ValueError: the first difference.
    """
    if missing := sorted(set(wanted) - set(found)):
        raise ValueError(f"{path}: weights of another network: '{missing[0]}' is missing")
    if extra := sorted(set(found) - set(wanted)):
        raise ValueError(f"{path}: weights of another network: it has no '{extra[0]}'")
    for name, tensor in wanted.items():
        if found[name].shape != tensor.shape:
            shapes = f"expected {tuple(tensor.shape)}, found {tuple(found[name].shape)}"
            raise ValueError(f"{path}: weights of another network: '{name}': {shapes}")


def find_weights(run: Path) -> Path:
    """Return a run's best weights, or its last ones where none were scored.

    Raises:
        ValueError: the run has none.
    """
    for name in (BEST, LAST):
        if (run / name).is_file():
            return run / name
    raise ValueError(f"{run}: expected {BEST}, found no weights; train the run first")


def export_weights(source: Path, target: Path) -> None:
    """Write a copy of weights in half precision, to be shipped; counters stay whole numbers.

    Raises:
        ValueError: not a safetensors file, or a weight that float16 cannot hold.
    """
    tensors = read_weights(source)
    half = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    for name, tensor in half.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{source}: '{name}' has values that float16 cannot hold")
    write_weights(half, target, read_about(source))
