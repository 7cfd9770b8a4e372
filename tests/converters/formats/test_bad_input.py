"""Files that are broken, hostile or odd: one clear line each, and nothing but a ValueError."""

from __future__ import annotations

import io
import json
import pickle
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from openpyxl import Workbook
from PIL import Image
from shapely.geometry import Polygon

import converters
from converters import DataError
from converters.masks import rasterize_labels
from converters.types import Instance, LabelSpace, Sample
from zoo.cli import main

# --- one broken file an image; all of them come in one error

Break = Callable[[Path], object]


def content(data: bytes) -> Break:
    return lambda path: path.write_bytes(data)


def json_of(*annotations: object, **more: object) -> Break:
    return content(json.dumps({"annotations": annotations, **more}).encode())


def ulna(points: object) -> Break:
    return json_of({"label": "Ulna", "points": points})


def folder(path: Path) -> None:
    path.mkdir()


def gone(path: Path) -> None:
    """The file was removed before."""


def loop(path: Path) -> None:
    path.symlink_to(path)


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> Break:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return content(file.getvalue())


def encoded(pixels: np.ndarray) -> Break:
    return content(bytes(cv2.imencode(".png", pixels)[1]))


SIZE = (48, 48)
GREY = np.random.default_rng(0).integers(0, 256, SIZE, np.uint8)
PNG = bytes(cv2.imencode(".png", GREY)[1])
L = Image.fromarray(GREY)

IMAGES: dict[str, tuple[Break, str]] = {
    "cut": (content(PNG[:900]), "expected a whole image, found one that is cut off"),
    "empty": (content(b""), "expected an image, found an empty file"),
    "text": (content(b"none"), "expected an image, found a file without a readable header"),
    "folder": (folder, "expected an image, found a folder"),
    "loop": (loop, "expected an image, found nothing there"),
    "32 bits": (
        saved(Image.fromarray(np.full(SIZE, -9, np.int32)), "TIFF"),
        "found mode I: save it as 8-bit",
    ),
    "16-bit colour": (encoded(np.full((*SIZE, 3), 999, np.uint16)), "found 16 bits: save it as"),
    "CMYK": (saved(L.convert("CMYK"), "JPEG"), "found mode CMYK: save it as 8-bit grey or RGB"),
}
A = [[5, 5], [20, 6], [12, 25]]
ANNOTATIONS: dict[str, dict[str, tuple[Break, str]]] = {
    "handbone": {
        "cut": (content(b'{"annotations": [{"la'), "expected JSON, found a broken file"),
        "empty": (content(b""), "expected JSON, found an empty file"),
        "latin": (content('{"note": "ä"}'.encode("latin-1")), "expected UTF-8, found byte 0xe4"),
        "utf-16": (content('{"annotations": []}'.encode("utf-16")), "expected UTF-8, found byte"),
        "deep": (content(b"[" * 100_000), "expected JSON, found brackets nested too deeply"),
        "digits": (content(b'{"annotations": [' + b"9" * 5000 + b"]}"), "found: Exceeds the limit"),
        "twice": (
            content(b'{"annotations": [], "annotations": []}'),
            "expected JSON, found: the name 'annotations' twice in one object",
        ),
        "list": (content(b"[]"), "expected a list 'annotations', found none"),
        "folder": (folder, "expected a JSON file, found: Is a directory"),
        "gone": (gone, "expected a JSON file of this name, found none"),
        "pickle": (content(pickle.dumps({"annotations": []})), "expected UTF-8, found byte 0x80"),
        "NaN": (ulna([[1, float("nan")], [2, 2], [3, 1]]), "'Ulna': expected finite points"),
        "infinite": (
            content(b'{"annotations": [{"label": "Ulna", "points": [[1e999, 1]]}]}'),
            "'Ulna': expected finite points",
        ),
        "far": (ulna([[1, 1e300], [2, 2], [3, 1]]), "expected points near the image, found 1e+300"),
        "huge": (ulna([[1, 10**400], [2, 2], [3, 1]]), "'Ulna': expected numbers as points"),
        "large": (ulna([[-(2**63), 1], [2, 2], [3, 1]]), "expected points near the image"),
        "no points": (ulna([]), "'Ulna': expected at least 3 points, found 0"),
        "two points": (ulna(A[:2]), "'Ulna': expected at least 3 points, found 2"),
        "no list": (ulna(None), "'Ulna': expected points [x, y], found None"),
        "flat": (ulna([1, 2, 3, 4, 5, 6]), "'Ulna': expected points [x, y], found shape (6,)"),
        "ragged": (ulna([[1, 2], [3]]), "'Ulna': expected points [x, y], found [[1, 2], [3]]"),
        "texts": (ulna([["1", "2"]] * 3), "'Ulna': expected numbers as points, found others"),
        "label": (json_of({"label": "Ulnar", "points": A}), "label of 'hand_bones', found 'Ulnar'"),
        "no label": (json_of({"points": A}), "expected a label of 'hand_bones', found None"),
        "number": (json_of(7), "annotation 0: expected an object, found 7"),
        "box": (
            json_of({"label": "Ulna", "type": "box", "points": A}),
            "'Ulna': expected type 'poly_seg', found 'box'",
        ),
    },
    "yolo": {
        "latin": (
            content(b"0 .1 .1 .2 .2 .3 \xe4"),
            "labels in UTF-8, found byte 0xe4",
        ),
        "text": (content(b"a b"), "line 1: expected a class and coordinates, found 'a b'"),
        "NaN": (content(b"0 nan .1 .2 .2 .3 .1"), "line 1: expected coordinates from 0 to 1"),
        "infinite": (content(b"0 1e999 .1 .2 .2 .3 .1"), "line 1: expected coordinates from 0"),
        "pixels": (content(b"\n0 5 5 20 6 12 25"), "line 2: expected coordinates from 0 to 1"),
        "two points": (content(b"0 .1 .1 .2 .2"), "line 1: expected points x y of an outline"),
        "no points": (content(b"0"), "line 1: expected at least 3 points x y, found 0 numbers"),
        "odd": (content(b"0 .1 .1 .2 .2 .3 .1 .5"), "line 1: expected at least 3 points x y"),
        "label": (
            content(b"29 .1 .1 .2 .2 .3 .1"),
            "line 1: expected a class of data.yaml, 0 to 28, found 29",
        ),
        "pickle": (
            content(pickle.dumps("0")),
            "labels in UTF-8, found byte 0x80",
        ),
    },
    "masks": {
        "cut": (content(PNG[:90]), "expected"),
        "empty": (content(b""), "expected"),
        "grey": (content(PNG), "expected"),
        "other size": (encoded(np.zeros((48, 47, 4), np.uint8)), "expected a mask of (48, 48)"),
        "gone": (gone, "No such file"),
        "folder": (folder, "expected"),
    },
}
PLACES = {
    "handbone": ("train/DCM/{group}/{stem}.png", "train/outputs_json/{group}/{stem}.json"),
    "yolo": ("images/train/{stem}.png", "labels/train/{stem}.txt"),
    "masks": ("images/{key}.png", "masks/{key}.png"),
}


def make_set(root: Path, name: str, number: int, labels: LabelSpace) -> list[Sample]:
    """A data set of so many images with one bone; each has an image file of its own."""
    (root / "source").mkdir()
    samples: list[Sample] = []
    for i in range(number):
        image = root / "source" / f"image{i}.png"
        image.write_bytes(PNG)
        group = f"ID{i // 2:03d}"
        bones = (Instance("Ulna", Polygon(A)),)
        samples.append(Sample(f"train/DCM/{group}/image{i}", image, SIZE, bones, group))
    converters.write(samples, root / "data", format=name, labels=labels)
    return samples


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.slow
def test_every_broken_file_has_one_line(name, labels, tmp_path):
    tables = (IMAGES, ANNOTATIONS[name])
    broken = [(which, kind) for which, table in enumerate(tables) for kind in table]
    samples = make_set(tmp_path, name, len(broken) + 1, labels)
    expected: dict[str, str] = {}
    for sample, (which, kind) in zip(samples, broken, strict=False):
        names = {"key": sample.key, "group": sample.group, "stem": sample.image.stem}
        path = tmp_path / "data" / PLACES[name][which].format(**names)
        path.unlink()
        tables[which][kind][0](path)
        expected[sample.key] = tables[which][kind][1]

    found, problems = converters.scan(tmp_path / "data", labels=labels)

    lines = {problem.key: str(problem) for problem in problems}
    assert len(problems) == len(lines) == len(broken)
    assert {key for key, line in lines.items() if expected[key] not in line} == set()
    assert not any("\n" in line for line in lines.values())
    assert samples[-1].key in {sample.key for sample in found}
    with pytest.raises(DataError) as error:
        converters.read(tmp_path / "data", labels=labels)
    assert len(error.value.problems) == len(broken)


def test_convert_says_what_is_wrong_and_writes_nothing(tree, tmp_path, capsys):
    tree.hand("ID001/good", ("Ulna", A))
    tree.hand("ID001/few", ("Ulna", A[:2]))
    tree.hand("ID002/label", ("finger-20", A))
    tree.image("ID002/alone")
    (tree.root / "train/DCM/ID001/few.png").write_bytes(PNG[:900])
    with pytest.raises(SystemExit) as stop:
        main(["convert", str(tree.root), "--to", "yolo", "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    few = "annotation 0: 'Ulna': expected at least 3 points, found 2"
    label = "annotation 0: expected a label of 'hand_bones', found 'finger-20'"
    assert capsys.readouterr().err.splitlines()[-5:] == [
        f"zoo: {tree.root}: found 4 problems; --broken skip goes on without 3 images",
        "zoo:   train/DCM/ID001/few.png: expected a whole image, found one that is cut off",
        "zoo:   train/DCM/ID002/alone.png: expected a JSON file of this name, found none",
        f"zoo:   train/outputs_json/ID001/few.json: {few}",
        f"zoo:   train/outputs_json/ID002/label.json: {label}",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


# --- paths that leave the data set


@pytest.mark.parametrize("place", ["../../source", "/", "images/../../source"])
def test_yolo_reads_no_folder_outside(place, labels, tmp_path):
    make_set(tmp_path, "yolo", 1, labels)
    path = tmp_path / "data" / "data.yaml"
    record = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**record, "train": place}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"expected a folder of images below .* found"):
        converters.read(tmp_path / "data", labels=labels)


@pytest.mark.parametrize("name", ["handbone", "yolo"])
@pytest.mark.parametrize("key", ["../source/x", "/etc/x", "a/../../x", ""])
@pytest.mark.slow
def test_an_index_gives_no_key_that_leads_outside(name, key, labels, tmp_path):
    make_set(tmp_path, name, 1, labels)
    path = tmp_path / "data" / "images.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({place: {**r, "key": key} for place, r in index.items()}))
    with pytest.raises(ValueError, match="expected a relative path, found"):
        converters.read(tmp_path / "data", labels=labels)


def test_links_in_a_tree_are_followed(tree, labels, tmp_path):
    tree.hand("ID001/a", ("Ulna", A))
    (tree.root / "train").rename(tmp_path / "elsewhere")
    (tree.root / "train").symlink_to(tmp_path / "elsewhere")
    assert [s.key for s in converters.read(tree.root, labels=labels)] == ["train/DCM/ID001/a"]


# --- any damage to a data set

# Bytes that JSON, YAML, text, images and spreadsheets take badly.
POISON = (b"", b"null", b"[]", b"{}", b"[" * 100_000, b"0" * 5000, b"\xff\xfe", b"\x80\x04K\x01.")
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**31, -(2**63), 10**30, 10**400, 1e308, float("nan"), float("inf")),
    *("", "x", "\0", "../../x", [], {}, [[]], [None], [1, 2], {"a": 1}),
)


def paths_in(record: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything in a record, itself included."""
    yield path
    if isinstance(record, list):
        record = dict(enumerate(record))
    if isinstance(record, dict):
        for step, value in record.items():
            yield from paths_in(value, (*path, step))


def damage_record(chance: random.Random, record: Any) -> Any:
    """Remove, repeat or rename one thing in a record, or put an odd one in its place."""
    *way, last = chance.choice(list(paths_in(record))) or (None,)
    if last is None:
        return chance.choice(ODD)
    place = record
    for step in way:
        place = place[step]
    how = chance.randrange(4)
    if how == 0:
        del place[last]
    elif how == 1 and isinstance(place, list):
        place.append(place[last])
    elif how == 1:
        place[f"{last}x"] = place.pop(last)
    else:
        place[last] = chance.choice(ODD)
    return record


def damage_bytes(chance: random.Random, data: bytes) -> bytes:
    """Cut, change, insert or remove bytes."""
    at = chance.randrange(len(data) + 1)
    match chance.randrange(5):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + chance.randbytes(chance.randrange(1, 20)) + data[at:]
        case 2:
            return data[:at] + data[at + chance.randrange(1, 200) :]
        case 3:
            changed = bytearray(data)
            for _ in range(min(len(data), 6)):
                changed[chance.randrange(len(data))] = chance.randrange(256)
            return bytes(changed)
    return chance.choice(POISON)


def damage(chance: random.Random, name: str, data: bytes) -> bytes:
    if name.endswith(".json") and chance.random() < 0.7:
        return json.dumps(damage_record(chance, json.loads(data))).encode()
    if name.endswith(".yaml") and chance.random() < 0.7:
        return yaml.safe_dump(damage_record(chance, yaml.safe_load(data))).encode()
    return damage_bytes(chance, data)


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("something was unpickled")


@pytest.mark.parametrize("name", ["handbone", "yolo", "masks", "coco", "datumaro", "segformer"])
@pytest.mark.slow
def test_damaged_data_sets_are_read_or_refused(name, drawn, labels, tmp_path, monkeypatch):
    kinds = {"plain": "train", "hole": "train", "two parts": "test", "overlap": "train"}
    samples = [
        replace(drawn[kind][1], key=f"{subset}/DCM/ID{i:03d}/image{i}", attributes={"age": 31.0})
        for i, (kind, subset) in enumerate(kinds.items())
    ]
    data = tmp_path / "data"
    converters.write(samples, data, format=name, labels=labels)
    if name == "handbone":
        book = Workbook()
        book.active.append(("ID", "age"))
        book.active.append((1, 42))
        book.save(data / "meta_data.xlsx")
    for method in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, method, refuse)
    files = sorted(p for p in data.rglob("*") if p.is_file() and p.name != "provenance.json")
    refused = 0
    for seed in range(200):
        chance = random.Random(seed)
        path = chance.choice(files)
        whole = path.read_bytes()
        path.unlink()  # it may be linked to the source
        path.write_bytes(damage(chance, path.name, whole))
        try:
            for sample in converters.read(data, format=name, subset="all", labels=labels):
                rasterize_labels(sample.instances, sample.size_hw)
        except ValueError:
            refused += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}, {path.relative_to(data)}: {error!r}") from error
        path.write_bytes(whole)
    assert 50 < refused < 200
