"""Weights on disk, as safetensors: names, numbers, and nothing that runs."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TypeGuard

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from converters.errors import one_line
from converters.files.atomic import unfinished
from zoo.run_files.metrics import read_rows

# Inside a run folder.
FOLDER = "checkpoints"
BEST = f"{FOLDER}/best.safetensors"
LAST = f"{FOLDER}/last.safetensors"
RESUME = f"{FOLDER}/last.ckpt"
# Of files of weights; those of torch are pickles, of which numbers alone are read.
_TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")
# Where those files have their weights, if not at the top.
_NESTED = ("state_dict", "model_state_dict", "model")
# What torch's unpickler raises on files that are none of its own; which depends on their bytes.
_BROKEN = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError),
    *(AssertionError, RuntimeError, struct.error),
)
SUFFIXES = (".safetensors", *_TORCH_SUFFIXES)
_BLOCK = re.compile(r".*\.\d+(?=\.)")
# The text of a file that guards its numbers: safetensors itself guards but its header's form.
_DIGEST = "sha256"


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
    """Write name -> tensor, which `read_weights` reads; else as `save_weights`.

    Raises:
        ValueError: a tensor holds NaN or an infinite number; the file is as it was before.
    """
    if name := first_broken(tensors):
        raise ValueError(f"{path}: '{name}' holds NaN or infinite numbers: nothing is written")
    # Copies: safetensors refuses tensors that share memory.
    plain = {k: v.clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    texts = {**(about or {}), _DIGEST: _digest_of(plain)}
    with unfinished(path) as place:
        save_file(plain, place, {"format": "pt", **texts})
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


def is_weight_file(name: str) -> bool:
    """Tell whether a config's text is a file of weights, and not a name that a library knows."""
    return name.lower().endswith(SUFFIXES)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read name -> tensor; of torch's files as well, without running what a pickle may hold.

    Raises:
        ValueError: no such file, not a whole one, or a tensor that holds NaN or an infinite number.
    """
    is_torch = path.suffix.lower() in _TORCH_SUFFIXES
    if not path.is_file():
        kind = "file of weights" if is_torch else "safetensors file"
        raise ValueError(f"{path}: expected a {kind}, found none")
    if is_torch:
        found = _read_torch(path)
        check_finite(found, path)
        return found
    try:
        found = dict(load_file(path))
    except SafetensorError as error:
        what = _recognise(path) or error
        raise ValueError(f"{path}: expected a whole safetensors file, found: {what}") from None
    check_finite(found, path)
    expected = _read_texts(path).get(_DIGEST)
    if expected is not None and expected != _digest_of(found):
        raise ValueError(
            f"{path}: expected the weights that were written, found other numbers (their SHA-256 "
            "is not that in the file): it is damaged; copy it again from where it is whole"
        )
    return found


def _read_torch(path: Path) -> dict[str, torch.Tensor]:
    try:
        # It warns of files that it then refuses.
        with warnings.catch_warnings(action="ignore"):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (*_BROKEN, pickle.UnpicklingError) as error:
        what = _recognise(path) or _what_it_runs(error)
        what = what or f"nothing that torch reads ({type(error).__name__}: {one_line(error)})"
        raise ValueError(
            f"{path}: expected a file of weights alone (torch.save of a state_dict), found "
            f"another: {what:.160}"
        ) from None
    if isinstance(found, Mapping):
        for inner in (*(found.get(key) for key in _NESTED), found):
            if _are_weights(inner):
                return {str(name): tensor for name, tensor in inner.items()}
    places = " or ".join(f"'{key}'" for key in _NESTED)
    raise ValueError(f"{path}: expected name -> tensor, or {places} with that: found none")


def _are_weights(value: object) -> TypeGuard[Mapping[object, torch.Tensor]]:
    if not isinstance(value, Mapping) or not value:
        return False
    return all(isinstance(tensor, torch.Tensor) for tensor in value.values())


def _recognise(path: Path) -> str:
    """Say what a file is that is often taken for weights; "" for others."""
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        return "an empty file"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer; fetch the file itself (git lfs pull)"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "a web page; download the file itself"
    is_torch = path.suffix.lower() in _TORCH_SUFFIXES
    if not is_torch and start.startswith((b"PK", b"\x80\x02")):
        return "a file of torch's; let its name end in .pth"
    if is_torch and start[8:10] == b'{"':
        return "a safetensors file; let its name end in .safetensors"
    if is_torch and start.startswith(b"PK") and not zipfile.is_zipfile(path):
        return "the beginning of one; copy it again from where it is whole"
    return ""


def _what_it_runs(error: BaseException) -> str:
    """Say what a pickle would have built or run; "" where the file is none."""
    if not isinstance(error, pickle.UnpicklingError):
        return ""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    asks = f"that asks for '{found[1]}'" if found else "of more than weights"
    return f"a pickle {asks}, which is not run; ask for weights alone"


def _digest_of(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and numbers, in hex."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(flat.numpy())
    return digest.hexdigest()


def first_broken(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """Return the name of the first tensor that holds NaN or an infinite number; None if none does.

    Of tensors on a device a single number is waited for, unless there is such a tensor.
    """
    numbers = {k: v for k, v in tensors.items() if v.is_floating_point() or v.is_complex()}
    flags = {name: _is_finite(tensor) for name, tensor in numbers.items()}
    by_device: dict[torch.device, list[torch.Tensor]] = {}
    for flag in flags.values():
        by_device.setdefault(flag.device, []).append(flag)
    if all(bool(torch.stack(found).all()) for found in by_device.values()):
        return None
    return next(name for name, flag in flags.items() if not flag)


def _is_finite(tensor: torch.Tensor) -> torch.Tensor:
    # Numbers of one byte have no such function.
    wide = tensor.float() if tensor.itemsize == 1 else tensor
    return wide.isfinite().all()


def check_finite(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Make sure that weights are numbers: a network of others predicts nothing, without a word.

    Raises:
        ValueError: a tensor holds NaN or an infinite number; names the file and the first such.
    """
    if name := first_broken(tensors):
        bad = int((~tensors[name].isfinite()).sum()) if tensors[name].itemsize > 1 else 1
        raise ValueError(
            f"{path}: expected finite weights, found {bad} of {tensors[name].numel()} numbers NaN "
            f"or infinite in '{name}': the training diverged or the file is damaged; take another "
            "checkpoint, or train again"
        )


def read_about(path: Path) -> dict[str, str]:
    """Read the texts that `save_weights` was given; empty where the file is missing or broken."""
    return {name: text for name, text in _read_texts(path).items() if name != _DIGEST}


def _read_texts(path: Path) -> dict[str, str]:
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


def strip_prefix(
    found: Mapping[str, torch.Tensor], wanted: Collection[str], path: Path
) -> dict[str, torch.Tensor]:
    """Return a file's weights without what stands before all the names that are wanted.

    Such as `module.`, `model.`, `encoder.`, which other programs put there, or `backbone.` of a
    network of which the backbone is wanted; what has not that beginning is left out. Of files that
    have any of the names themselves, or not all of them with one beginning, all is returned.

    Args:
        found: name -> tensor.
        wanted: names.
        path: of the file, for the message.

    Raises:
        ValueError: the names are there with two beginnings, such as a teacher's and a student's.
    """
    names = set(wanted)
    if not names or names & found.keys():
        return dict(found)
    last = "." + max(names, key=len)
    starts = [key[: len(key) - len(last) + 1] for key in found if key.endswith(last)]
    whole = [s for s in starts if all(s + name in found for name in names)]
    if len(whole) > 1:
        raise ValueError(
            f"{path}: expected the weights of one such network, found {len(whole)}, below "
            f"'{whole[0]}' and '{whole[1]}': save one of them"
        )
    if not whole:
        return dict(found)
    (start,) = whole
    return {k.removeprefix(start): v for k, v in found.items() if k.startswith(start)}


def further_blocks(found: Collection[str], wanted: Collection[str]) -> list[str]:
    """Return names of blocks that a network lacks, in parts that it has; in order.

    Such as the third block of a stage that has two: they are of a deeper network.

    >>> further_blocks(["layer1.0.bias", "layer1.2.bias", "fc.bias"], ["layer1.0.bias"])
    ['layer1.2.bias']
    """
    parts = {name.partition(".")[0] for name in wanted}
    blocks = {_block_of(name) for name in wanted}
    there = (name for name in found if name.partition(".")[0] in parts)
    return sorted(name for name in there if _block_of(name) not in blocks)


def _block_of(name: str) -> str:
    """Return a weight's name up to its last number."""
    found = _BLOCK.match(name)
    return found[0] if found else ""


def load_initial(network: nn.Module, path: Path) -> None:
    """Read a file's weights into a network that is to learn; their names may begin in another way.

    Raises:
        ValueError: as `load_weights`, or there is more than the network in the file.
    """
    found, wanted = read_weights(path), network.state_dict()
    own = strip_prefix(found, wanted, path)
    check_alike(own if len(own) == len(found) else found, wanted, path)
    network.load_state_dict(own)


def find_weights(run: Path) -> Path:
    """Return a run's best weights, or its last ones where none were scored.

    Raises:
        ValueError: the run has none, or its best ones are gone.
    """
    best, last = run / BEST, run / LAST
    if best.is_file():
        return best
    if not last.is_file():
        raise ValueError(f"{run}: expected {BEST}, found no weights; train the run first")
    if _is_scored(run):
        raise ValueError(
            f"{best}: expected the best weights of a run that was scored, found none; put the file "
            f"back, or copy {LAST} there to take the last ones instead"
        )
    return last


def _is_scored(run: Path) -> bool:
    scores = (row.get("val_dice") for row in read_rows(run / "metrics.csv"))
    return any(score and math.isfinite(float(score)) for score in scores)


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
