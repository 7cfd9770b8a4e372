"""Writing phantom hands as the competition's tree: images, annotations, workbook."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from itertools import count, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from converters.files.atomic import unfinished
from converters.files.json_files import load_json
from converters.parallel import map_ordered
from converters.types import LabelSpace
from zoo.phantom.anatomy import BENT, NEUTRAL, Hand, draw_hands
from zoo.phantom.annotation import IntPoints, draw_polygons
from zoo.phantom.config import LABELS, PhantomConfig
from zoo.phantom.radiograph import Build, draw_build, render_hand
from zoo.phantom.styles import STYLES, redraw
from zoo.phantom.wear import cut_fingertip, draw_wear
from zoo.phantom.workbook import PersonRow, draw_row, write_workbook

PROVENANCE = "provenance.json"
HANDS = 2
TRAIN, TEST = 0, 1

_COMMAND = "phantom"
_SHAPE, _BUILD, _ROW, _HAND = range(4)
_WEAR, _RENDER, _DRAW, _NAME, _STYLE = range(1, 6)
_SPLIT_SHARE = 0.04
_SIDE_SHARE = 0.35
_CLAIMED_SIZE = 3060
_FIRST_MS = 1_661_130_828_152
_STEP_MS = 90_000


@dataclass(frozen=True)
class Subject:
    """One person to be drawn: ``index`` counts within the subset, ``number`` is the ID."""

    subset: int
    index: int
    number: int
    posture: int

    @property
    def folder(self) -> str:
        """Name of the person's folder."""
        return f"ID{self.number:03d}"


def write_phantom(
    out: Path,
    config: PhantomConfig,
    progress: Callable[[int, int], None] | None = None,
    jobs: int = 1,
) -> None:
    """Write a phantom data set in the format of the competition.

    Images go to ``train/DCM`` and ``test/DCM``, annotations to ``train/outputs_json``, the truth
    of the test images to ``truth/outputs_json``, people to ``meta_data.xlsx``. The tree appears
    when it is whole; a phantom that was there is replaced.

    Args:
        out: folder to write.
        config: what to draw.
        progress: called with images done and images in all.
        jobs: processes; the result does not depend on their number.

    Raises:
        ValueError: ``out`` holds something else than a phantom, or ``jobs`` is below 1.
    """
    if jobs < 1:
        raise ValueError(f"jobs: expected 1 or more, found {jobs}")
    out = out.resolve()
    _check_replaceable(out)
    with unfinished(out) as folder:
        folder.mkdir()
        _write_tree(folder, config, progress, jobs)
        # The work takes a while, in which somebody may have put something there.
        _check_replaceable(out)


def plan_subjects(config: PhantomConfig) -> list[Subject]:
    """List the people of both subsets, with IDs and postures that do not depend on the counts."""
    return [
        Subject(subset, index, number, BENT if _is_chosen(index, share) else NEUTRAL)
        for subset, people, share in (
            (TRAIN, config.people, config.bent_train),
            (TEST, config.test_people, config.bent_test),
        )
        for index, number in enumerate(islice(_numbers(subset), people))
    ]


def _numbers(subset: int) -> Iterator[int]:
    """IDs of a subset: with gaps, the test set's among those of the training set."""
    for number in count(1):
        is_test = number >= 40 and number % 3 == 1
        if number % 11 != 5 and is_test == (subset == TEST):
            yield number


def _is_chosen(index: int, share: float) -> bool:
    """Spread a share evenly over 0, 1, 2, ...: of the first n, n * share are chosen, rounded."""
    return int((index + 1) * share + 0.5) > int(index * share + 0.5)


def _check_replaceable(out: Path) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    found = "a file" if not out.is_dir() else "a folder without the provenance of one"
    if (out / PROVENANCE).is_file():
        try:
            record = load_json(out / PROVENANCE)
        except ValueError:
            record = None
        command = record.get("command") if isinstance(record, dict) else None
        if command == _COMMAND:
            return
        found = f"the result of '{command}'" if command else f"another {PROVENANCE}"
    raise ValueError(f"{out}: expected a new folder or a phantom, found {found}; name another")


def _write_tree(
    root: Path,
    config: PhantomConfig,
    progress: Callable[[int, int], None] | None,
    jobs: int,
) -> None:
    subjects = plan_subjects(config)
    people = []
    for row in map_ordered(
        partial(_write_subject, root, config), subjects, min(jobs, len(subjects))
    ):
        people.append(row)
        if progress is not None:
            progress(HANDS * len(people), HANDS * len(subjects))
    write_workbook(root / "meta_data.xlsx", people)
    _write_json(root / PROVENANCE, _provenance(config))


def _provenance(config: PhantomConfig) -> dict[str, Any]:
    libraries = ("numpy", "openpyxl")
    versions = {name: version(name) for name in libraries} | {"opencv": str(cv2.__version__)}
    return {
        "command": _COMMAND,
        "config": _as_given(config),
        "seed": config.seed,
        "versions": versions | {"python": platform.python_version()},
    }


def _as_given(config: PhantomConfig) -> dict[str, Any]:
    """Return the settings; what came later is told where it is used, so that bytes stay."""
    found = asdict(config)
    if config.annotators == 1:
        del found["annotators"]
    return found


def _stream(config: PhantomConfig, subject: Subject, *path: int) -> np.random.Generator:
    """A source of random numbers that belongs to one purpose of one person or hand."""
    key = (subject.subset, subject.index, *path)
    return np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=key))


def _write_subject(root: Path, config: PhantomConfig, subject: Subject) -> PersonRow:
    hand_rngs = tuple(_stream(config, subject, _HAND + hand) for hand in range(HANDS))
    shape_rng = _stream(config, subject, _SHAPE)
    hands = draw_hands(shape_rng, hand_rngs, subject.posture, config.size)
    build = draw_build(_stream(config, subject, _BUILD))
    kinds = [
        _write_hand(root, config, subject, index, hand, build) for index, hand in enumerate(hands)
    ]
    row_rng = _stream(config, subject, _ROW)
    return draw_row(row_rng, subject.number, kinds, stray=subject.index == 1)


def _write_hand(
    root: Path, config: PhantomConfig, subject: Subject, index: int, hand: Hand, build: Build
) -> str:
    """Write image and annotation of one hand; return what it wears."""
    stage = partial(_stream, config, subject, _HAND + index)
    wear = draw_wear(stage(_WEAR), config.artefacts)
    if wear.kind == "cut":
        hand = cut_fingertip(hand, wear)
    image = render_hand(hand, build, wear, stage(_RENDER))
    style = None
    if config.annotators > 1:
        # Both hands of a person may be drawn by different people.
        strokes = stage(_STYLE)
        style = STYLES[int(strokes.integers(config.annotators))]
        hand = replace(hand, outlines=redraw(hand, style, strokes))
    polygons = draw_polygons(hand, stage(_DRAW), _SPLIT_SHARE)
    names = stage(_NAME)
    stem = _stem(subject, index, hand, names)
    images, annotations = _places(root, subject)
    _write_png(images / f"{stem}.png", image)
    document = _document(stem, subject, polygons, names)
    if style:
        document["last_modifier_id"] = style.name
    _write_json(annotations / f"{stem}.json", document)
    return wear.kind


def _places(root: Path, subject: Subject) -> tuple[Path, Path]:
    """Folders of a person's images and annotations, made if need be."""
    images = root / ("test" if subject.subset == TEST else "train") / "DCM" / subject.folder
    truth = root / ("truth" if subject.subset == TEST else "train")
    annotations = truth / "outputs_json" / subject.folder
    for folder in (images, annotations):
        folder.mkdir(parents=True, exist_ok=True)
    return images, annotations


def _stem(subject: Subject, index: int, hand: Hand, rng: np.random.Generator) -> str:
    """``image`` and 13 digits that occur once, now and then the side."""
    slot = 2 * (HANDS * subject.index + index) + subject.subset
    stamp = _FIRST_MS + _STEP_MS * slot + int(rng.integers(_STEP_MS))
    side = ("_L" if hand.mirrored else "_R") if rng.random() < _SIDE_SHARE else ""
    return f"image{stamp}{side}"


def _document(
    stem: str, subject: Subject, polygons: list[tuple[int, IntPoints]], rng: np.random.Generator
) -> dict[str, Any]:
    """The annotation file of one image, its false name and size included."""
    names = LabelSpace.load(LABELS).names
    return {
        "annotations": [
            {
                "id": rng.bytes(12).hex(),
                "type": "poly_seg",
                "attributes": {},
                "points": points.tolist(),
                "label": names[bone],
            }
            for bone, points in polygons
        ],
        "attributes": {},
        "file_id": rng.bytes(12).hex(),
        "filename": f"{stem}.jpg",
        "parent_path": f"/{subject.folder}",
        "last_modifier_id": rng.bytes(12).hex(),
        "metadata": {"height": _CLAIMED_SIZE, "width": _CLAIMED_SIZE},
        "last_workers": {},
    }


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_png(path: Path, image: NDArray[np.uint8]) -> None:
    done, encoded = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 6])
    if not done:
        raise OSError(f"{path}: the image could not be encoded")
    path.write_bytes(encoded.tobytes())
