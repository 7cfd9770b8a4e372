"""Networks of Ultralytics, and the weights that they start from; under AGPL-3.0."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

import configs
from converters.errors import one_line
from converters.strict_yaml import read_mapping
from zoo.families.yolo.config import YoloConfig
from zoo.families.yolo.offline import files_as_given
from zoo.machine.devices import place
from zoo.run_files.checkpoints import check_finite, load_weights

# isort: split
from ultralytics.nn.tasks import (
    SegmentationModel,
    guess_model_scale,
    torch_safe_load,
    yaml_model_load,
)
from ultralytics.utils.downloads import (
    GITHUB_ASSETS_NAMES,
    GITHUB_ASSETS_REPO,
    attempt_download_asset,
)


def network_description(config: YoloConfig) -> dict[str, Any]:
    """Read the network's YAML file, with the config's scale put into it.

    Raises:
        ValueError: no such file, or not the description of a segmentation network.
    """
    path = Path(config.model)
    if path.suffix not in {".yaml", ".yml"}:
        told = f"model '{config.model}': expected a .yaml file, such as yolov8x-seg.yaml"
        if path.suffix == ".pt":
            told += f"; its weights are another key: model={path.stem}.yaml init={path}"
        raise ValueError(told)
    described = _read_description(path)
    head = described.get("head") or [[None]]
    if "Segment" not in str(head[-1]):
        raise ValueError(f"model '{config.model}': expected a segmentation network (-seg.yaml)")
    if config.depth is not None or config.width is not None:
        scale = (config.depth or 1.0, config.width or 1.0, config.max_channels)
        described.update(scales={"config": list(scale)}, scale="config")
    return described


def _read_description(path: Path) -> dict[str, Any]:
    if path.is_file():
        # Ultralytics would search elsewhere for a path that it finds odd.
        found = read_mapping(path, "the description of a network")
        return {**found, "scale": guess_model_scale(path), "yaml_file": str(path)}
    missing = f"model '{path}': found neither here nor in Ultralytics"
    if path.name != str(path):
        raise ValueError(missing)
    try:
        # Its own files are found without the scale's letter: yolov8x-seg.yaml is yolov8-seg.yaml.
        described: dict[str, Any] = yaml_model_load(path)
    except (FileNotFoundError, yaml.YAMLError):
        raise ValueError(missing) from None
    return described


def build_network(config: YoloConfig, classes: int) -> nn.Module:
    """Return the network with random weights.

    Its input is RGB in 0..1, float (N, 3, imgsz, imgsz).
    """
    network: nn.Module = SegmentationModel(
        network_description(config), ch=3, nc=classes, verbose=False
    )
    return network


def place_network(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to a device; on a GPU the order of memory is Ultralytics' affair."""
    return place(network, device) if device.type == "cpu" else network.to(device)


def load_initial(network: nn.Module, name: str) -> None:
    """Read weights to start from into a network.

    Raises:
        ValueError: no such file, the weights of another network, or a pickle of more than a
            network of Ultralytics'.
    """
    try:
        path = configs.find_weights("yolo", name)
    except ValueError as error:
        raise ValueError(f"{error}{_by_hand(Path(name))}") from None
    if path.suffix == ".safetensors":
        load_weights(network, path)
    else:
        _take_what_fits(network, _read_pickle(path), path)


def _by_hand(path: Path) -> str:
    """Say where a file of Ultralytics' release of weights lies; "" for a name that it has not."""
    if path.name not in GITHUB_ASSETS_NAMES:
        return ""
    release = inspect.signature(attempt_download_asset).parameters["release"].default
    page = f"https://github.com/{GITHUB_ASSETS_REPO}/releases/download/{release}/{path.name}"
    return f"; get {page} and set init=FOLDER/{path.name}"


def _take_what_fits(network: nn.Module, found: dict[str, torch.Tensor], path: Path) -> None:
    # Ultralytics' own `load` would also widen the head after the number of classes that the file
    # has, so that the config no longer describes the network.
    wanted = network.state_dict()
    fits = {k: v for k, v in found.items() if k in wanted and v.shape == wanted[k].shape}
    if 2 * len(fits) < len(wanted):
        raise ValueError(f"{path}: weights of another network: {len(fits)} of {len(wanted)} fit")
    network.load_state_dict(fits, strict=False)


def _read_pickle(path: Path) -> dict[str, torch.Tensor]:
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):
        raise ValueError(f"{path}: reading a .pt file safely needs PyTorch 2.6 or newer")
    if path.suffix != ".pt":
        raise ValueError(f"{path}: expected weights as .safetensors or .pt, found '{path.suffix}'")
    try:
        # Only classes of PyTorch's and Ultralytics' networks are built; anything else is refused.
        # A broken file with the name of one of its own it would delete, but for a whole path.
        with files_as_given():
            checkpoint, opened = torch_safe_load(path.absolute(), safe_only=True)
        if Path(opened) != path.absolute():
            raise ValueError(f"another file was opened: {opened}")
        found = checkpoint.get("ema") or checkpoint.get("model")
        if not isinstance(found, nn.Module):
            raise ValueError("no network is in it, such as Ultralytics saves")
        state: dict[str, torch.Tensor] = found.float().state_dict()
    except Exception as error:
        reason = one_line(error)
        raise ValueError(f"{path}: expected weights of Ultralytics: {reason:.300}") from None
    check_finite(state, path)
    return state
