"""nnU-Net v2 on the same folds, for the same time, at the same size: a rival to measure against.

It lives in an environment of its own, because its requirements are others:

    python -m venv nn && nn/bin/pip install nnunetv2
    python tools/bench.py real DATA --out OUT --nnunet nn/bin/python

Its images are as large as the other networks see them. Classes that share pixels are regions
(`zoo convert --to nnunet`), and its probabilities are taken as they are.
"""

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from converters.files.json_files import load_json
from converters.formats.mask_folders.nnunet_writing import DATASET
from converters.formats.writing import read_index
from converters.types import LabelSpace
from fusion.interchange.dense import from_planes
from fusion.sources.manifest import Manifest
from fusion.sources.store import StoreWriter

NAME = "nnU-Net"
_NUMBER, _FOLDER = 101, "Dataset101_bench"
_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
_TRAINING = Path(__file__).with_name("nnunet_training.py")


def write_raw(convert: list[str], home: Path, side: int) -> None:
    """Write the data set for nnU-Net, its images as large as others see them.

    Args:
        convert: command that writes it, but for its place.
        home: of all of nnU-Net's folders.
        side: pixels of an image's longer side at most.
    """
    raw = home / _FOLDERS[0] / _FOLDER
    if raw.is_dir():
        return
    made = home / "made"
    subprocess.run([*convert, "--to", "nnunet", "--out", str(made)], check=True)
    for path in sorted(made.glob("*Tr/*.png")):
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert pixels is not None
        scale = side / max(pixels.shape[:2])
        if scale < 1:
            is_map = path.parent.name.startswith("labels")
            how = cv2.INTER_NEAREST_EXACT if is_map else cv2.INTER_AREA
            cv2.imwrite(str(path), cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=how))
    raw.parent.mkdir(exist_ok=True)
    made.rename(raw)


def cross_validate(python: Path, home: Path, minutes: float, batch: int, seed: int) -> float:
    """Train and predict every fold; return the minutes of a core that it took, now or before.

    Args:
        python: of nnU-Net's environment.
        home: as for `write_raw`.
        minutes: of a core, for the steps of each fold.
        batch: images a step.
        seed: of weights and augmentation.
    """
    places = {name: str((home / name).resolve()) for name in _FOLDERS}
    settings = {"nnUNet_def_n_proc": "2", "nnUNet_compile": "f"}
    numbers = [str(_NUMBER), f"{minutes:.3f}", "--batch", str(batch), "--seed", str(seed)]
    command = [str(python), str(_TRAINING), *numbers]
    print("$", shlex.join(command), flush=True)
    subprocess.run(command, check=True, env={**os.environ, **places, **settings})
    done = [
        json.loads(path.read_text()) for path in home.glob("nnUNet_results/*/*/fold_*/done.json")
    ]
    print(f"{NAME}: {', '.join(str(one['steps']) for one in done)} steps", flush=True)
    return sum(float(one["core_minutes"]) for one in done)


def write_store(home: Path, like: Manifest, out: Path) -> None:
    """Write what nnU-Net says of held-out images as a store.

    Args:
        home: as for `write_raw`.
        like: of a store of the same images by another model.
        out: the store's folder.
    """
    manifest = Manifest(
        *("semantic", like.labels, like.names, like.images),
        source={"family": NAME},
        split=like.split,
        subset=like.subset,
        groups=like.groups,
        space=like.space,
    )
    classes = like.space or LabelSpace(like.labels, like.names)
    found = dict(_files(home))
    regions = _regions(home)
    with StoreWriter(out, manifest) as writer:
        for key in list(writer.remaining):
            with np.load(found[key], allow_pickle=False) as content:
                planes = content["probabilities"][:, 0]
            height, width, _ = like.images[key]
            named = {
                name: np.clip(planes[place], 0, 1)
                for name, place in regions.items()
                if name in like.names
            }
            writer.append(from_planes(key, named, classes, (height, width)))


def _files(home: Path) -> Iterator[tuple[str, Path]]:
    index = read_index(home / _FOLDERS[0] / _FOLDER)
    for path in home.glob("nnUNet_results/*/*/fold_*/validation/*.npz"):
        yield index[path.stem]["key"], path


def _regions(home: Path) -> dict[str, int]:
    """Class -> its place among the probabilities; of regions there is none of the background."""
    labels = load_json(home / _FOLDERS[0] / _FOLDER / DATASET)["labels"]
    has_regions = any(isinstance(own, list) for own in labels.values())
    return {name: place - has_regions for place, name in enumerate(labels) if place}
