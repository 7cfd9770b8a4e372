"""Images and masks that lie as people put them, and are paired by names, contents or a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

import converters
from converters.masks import rasterize_labels

SIZE = (24, 32)
NUMBERS = range(3)
# Class -> where its square begins; it has eight pixels a side, and lies one lower in each image.
SQUARES = {"heart": 2, "lung": 14}


def photograph(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(number).integers(0, 255, SIZE).astype(np.uint8)
    assert cv2.imwrite(str(path), values)


def mask(path: Path, number: int, *classes: str) -> None:
    """Write a black and white mask of one class, or numbers of several."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plane = np.zeros(SIZE, np.uint8)
    for value, name in enumerate(classes, 1):
        start = SQUARES[name]
        plane[number + 2 : number + 10, start : start + 8] = 255 if len(classes) == 1 else value
    assert cv2.imwrite(str(path), plane)


def in_one_folder(image: str, drawn: str) -> Callable[[Path], None]:
    """Return what writes images and masks of these names, with a number each, side by side."""

    def make(root: Path) -> None:
        for n in NUMBERS:
            photograph(root / f"{image.format(n)}.png", n)
            mask(root / f"{drawn.format(n)}.png", n, *SQUARES)

    return make


def folder_of_a_case(root: Path) -> None:
    for n in NUMBERS:
        photograph(root / f"patient_{n}/xray.png", n)
        for name in SQUARES:
            mask(root / f"patient_{n}/{name}.png", n, name)


def folders_of_classes(root: Path) -> None:
    for n in NUMBERS:
        photograph(root / f"xrays/img_{n}.png", n)
        for name in SQUARES:
            mask(root / f"{name}/img_{n}.png", n, name)


def named_by_a_table(root: Path) -> None:
    rows = ["patient;mask path;image path"]
    for n in NUMBERS:
        photograph(root / f"raw/scan{n}.png", n)
        mask(root / f"drawn/{7 - n}.png", n, *SQUARES)
        rows.append(rf"{n};C:\set\drawn\{7 - n}.png;raw/scan{n}.png")
    (root / "dataset.csv").write_text("\n".join(rows))


def of_classes(image: str, drawn: str) -> Callable[[Path], None]:
    """Return what writes images and masks of a class by these names, with number and class."""

    def make(root: Path) -> None:
        for n in NUMBERS:
            photograph(root / f"{image.format(n=n)}.png", n)
            for name in SQUARES:
                mask(root / f"{drawn.format(n=n, name=name)}.png", n, name)

    return make


OF_CLASSES = [
    ("images/p{n}", "masks/p{n}_{name}_mask"),
    ("images/p{n}", "masks/p{n}_mask_{name}"),
    ("images/p{n}", "masks/{name}_p{n}"),
    ("images/p{n}", "masks/mask_{name}_p{n}"),
    ("images/p{n}", "{name}_masks/p{n}"),
    ("p{n}", "{name}_masks/p{n}"),
    ("p{n}", "{name}/p{n}"),
    ("images/p{n}", "images/{name}_masks/p{n}"),
    ("images/p{n}", "masks/{name}_mask/p{n}"),
    ("p{n}", "p{n}_{name}"),
    ("p{n}", "p{n}.{name}"),
    ("p{n}/image", "p{n}/{name}_mask"),
    ("p{n}/image", "p{n}/mask_{name}"),
    ("p{n}/image", "p{n}/seg/{name}"),
    ("p{n}/xray", "p{n}/seg/{name}"),
    ("p{n}/p{n}", "p{n}/seg/{name}"),
    ("p{n}/p{n}", "p{n}/{name}"),
    ("p{n}/p{n}", "p{n}/p{n}_{name}"),
    ("p{n}/images/p{n}", "p{n}/masks/{name}"),
    ("p{n}/images/p{n}", "p{n}/masks/p{n}_{name}"),
]


LAYOUTS = {
    in_one_folder("image_{}", "mask_{}"): ("1", "2"),
    in_one_folder("img_{}", "mask_img_{}"): ("1", "2"),
    in_one_folder("img_{}", "img_{}.mask"): ("1", "2"),
    in_one_folder("img_{}", "img_{}_cp_masks"): ("1", "2"),
    in_one_folder("img_{}_cp", "img_{}_cp_masks"): ("1", "2"),
    folder_of_a_case: ("heart", "lung"),
    folders_of_classes: ("heart", "lung"),
    named_by_a_table: ("1", "2"),
    **{of_classes(*names): ("heart", "lung") for names in OF_CLASSES},
}


@pytest.mark.parametrize(
    ("names", "label"),
    [
        ("cell{}", "cell"),
        ("cell_{}", "cell"),
        ("mask{}", "object"),
        ("instance_{}", "object"),
        ("{}", "object"),
        ("3f0{}8e1b77", "object"),
    ],
)
def test_numbers_of_objects_in_folders_of_cases_are_no_classes(
    names: str, label: str, tmp_path: Path
) -> None:
    for n in NUMBERS:
        photograph(tmp_path / f"p{n}/images/p{n}.png", n)
        # As many as there are, another number in each image.
        for number, name in enumerate([*SQUARES][: n + 1]):
            mask(tmp_path / f"p{n}/masks/{names.format(number)}.png", n, name)
    assert converters.label_space(tmp_path).names == (label,)
    assert sum(len(sample.instances) for sample in converters.read(tmp_path)) == 5


# How images and masks are called, and where each of the latter begins, in each image.
NAMES_IN_CASES = {
    "missing": ({"sacrum": 2, "L1": 12, "L2": 22}, {1: ["L2"]}, {"L", "sacrum"}),
    "always": ({"sacrum": 2, "L1": 12, "L2": 22}, {}, {"L1", "L2", "sacrum"}),
    "ribs": ({"heart": 2, "rib_1": 12, "rib_2": 22}, {}, {"heart", "rib"}),
    "digits": ({"3rd_ventricle": 2, "T12_body": 12, "covid19": 22}, {},
               {"3rd_ventricle", "T12_body", "covid19"}),
    "seldom": ({"heart": 2, "lung": 12, "stone": 22}, {0: ["stone"], 1: ["lung"], 2: ["lung"]},
               {"heart", "lung", "stone"}),
}  # fmt: skip


@pytest.mark.parametrize("case", NAMES_IN_CASES)
@pytest.mark.parametrize(
    ("image", "drawn"),
    [
        ("p{n}/images/p{n}", "p{n}/masks/{name}"),
        ("p{n}/images/p{n}", "p{n}/masks/{name}_p{n}"),
        ("p{n}/image", "p{n}/seg/{name}"),
    ],
)
def test_masks_in_folders_of_cases_are_of_classes(
    image: str, drawn: str, case: str, tmp_path: Path
) -> None:
    starts, missing, expected = NAMES_IN_CASES[case]
    count = 0
    for n in NUMBERS:
        photograph(tmp_path / f"{image.format(n=n)}.png", n)
        for name, start in starts.items():
            if name not in missing.get(n, []):
                path = tmp_path / f"{drawn.format(n=n, name=name)}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                plane = np.zeros(SIZE, np.uint8)
                plane[n + 2 : n + 10, start : start + 8] = 255
                assert cv2.imwrite(str(path), plane)
                count += 1
    assert set(converters.label_space(tmp_path).names) == expected
    assert sum(len(sample.instances) for sample in converters.read(tmp_path)) == count


@pytest.mark.parametrize("drawn", ["masks/{name}_p{n}", "masks/p{n}_{name}", "masks/{name}/p{n}"])
def test_masks_of_classes_may_have_smoothed_edges(drawn: str, tmp_path: Path) -> None:
    of_classes("images/p{n}", drawn)(tmp_path)
    expected = [rasterize_labels(s.instances, s.size_hw) for s in converters.read(tmp_path)]
    for path in (tmp_path / "masks").rglob("*.png"):
        plane = cv2.resize(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), None, fx=8, fy=8)
        assert cv2.imwrite(str(path), cv2.GaussianBlur(plane, (3, 3), 0))
    for path in (tmp_path / "images").iterdir():
        size = (SIZE[1] * 8, SIZE[0] * 8)
        photograph = cv2.resize(cv2.imread(str(path)), size, interpolation=cv2.INTER_NEAREST)
        assert cv2.imwrite(str(path), photograph)
    for sample, before in zip(converters.read(tmp_path), expected, strict=True):
        masks = rasterize_labels(sample.instances, sample.size_hw)
        assert masks.keys() == before.keys()
        for label, own in masks.items():
            assert abs(own.area / (64 * before[label].area) - 1) < 0.05
    noise = np.random.default_rng(0).integers(0, 255, (SIZE[0] * 8, SIZE[1] * 8), np.uint8)
    assert cv2.imwrite(str(min((tmp_path / "masks").rglob("*.png"))), noise)
    with pytest.raises(ValueError, match="expected"):
        converters.read(tmp_path)


def test_a_case_without_one_of_the_masks_is_read_as_the_others(tmp_path: Path) -> None:
    of_classes("p{n}/p{n}", "p{n}/p{n}_{name}")(tmp_path)
    (tmp_path / "p1" / "p1_lung.png").unlink()
    found = {s.key: sorted(i.label for i in s.instances) for s in converters.read(tmp_path)}
    assert found["p1/p1"] == ["heart"]
    assert found["p0/p0"] == found["p2/p2"] == ["heart", "lung"]


AGAIN = [
    ("images/p{n}", "masks/{name}_p{n}", ("rater1", "rater2")),
    ("images/p{n}", "masks/p{n}_{name}", ("expert1", "expert2")),
    ("images/p{n}", "masks/{name}/p{n}", ("annotator_1", "annotator_2")),
    ("images/p{n}", "masks/{name}_p{n}", ("heart", "heart_pred")),
    ("images/p{n}", "masks/{name}_p{n}", ("vessel", "skeleton")),
    ("p{n}/image", "p{n}/seg/{name}/heart", ("anna", "bernd")),
    ("p{n}/images/p{n}", "p{n}/masks/{name}/heart", ("anna", "bernd")),
    ("p{n}/image", "p{n}/seg/{name}", ("gt", "pred")),
    ("p{n}/image", "p{n}/{name}", ("heart", "prediction")),
    ("p{n}", "{name}/p{n}", ("anna", "bernd")),
]


@pytest.mark.parametrize(("image", "drawn", "names"), AGAIN, ids=[f"{d} {n}" for _, d, n in AGAIN])
def test_what_was_drawn_again_is_of_no_class(
    image: str, drawn: str, names: tuple[str, ...], tmp_path: Path
) -> None:
    for n in NUMBERS:
        photograph(tmp_path / f"{image.format(n=n)}.png", n)
        for name in names:
            mask(tmp_path / f"{drawn.format(n=n, name=name)}.png", n, "heart")
    with pytest.raises(ValueError, match="expected"):
        converters.read(tmp_path, subset="train")


@pytest.mark.parametrize("drawn", ["images/p{n}", "p{n}"])
@pytest.mark.parametrize("inner", [10, 8, 3])
def test_a_class_may_lie_in_another(drawn: str, inner: int, tmp_path: Path) -> None:
    for n in NUMBERS:
        photograph(tmp_path / f"{drawn.format(n=n)}.png", n)
        for name, radius in (("disc", 11), ("cup", inner)):
            path = tmp_path / f"{name}_masks/p{n}.png"
            path.parent.mkdir(exist_ok=True)
            plane = cv2.circle(np.zeros(SIZE, np.uint8), (12 + n, 11), radius, 255, -1)
            assert cv2.imwrite(str(path), plane)
    if inner == 10:  # as alike as what two people draw
        with pytest.raises(ValueError, match="expected"):
            converters.read(tmp_path, subset="train")
        return
    for sample in converters.read(tmp_path, subset="train"):
        assert sorted(found.label for found in sample.instances) == ["cup", "disc"]


def test_a_class_without_a_file_where_nearly_all_have_one_is_said(tmp_path: Path) -> None:
    for n in range(5):
        photograph(tmp_path / f"images/p{n}.png", n)
        for name in SQUARES:
            mask(tmp_path / f"masks/{name}/p{n}.png", n, name)
    notes: list[str] = []
    converters.read(tmp_path, note=notes.append)
    assert "no mask of" not in " ".join(notes)
    (tmp_path / "masks/heart/p3.png").unlink()
    converters.read(tmp_path, note=notes.append)
    assert "no mask of 'heart' for 1 of 5 images (p3): taken as without one" in " ".join(notes)


def test_classes_whose_masks_hardly_differ_are_said(tmp_path: Path) -> None:
    for n in NUMBERS:
        photograph(tmp_path / f"images/p{n}.png", n)
        for name in ("old", "new"):
            mask(tmp_path / f"masks/{name}/p{n}.png", n, "heart")
        mask(tmp_path / f"masks/lung/p{n}.png", n, "lung")
    notes: list[str] = []
    assert set(converters.label_space(tmp_path).names) == {"new", "old", "lung"}
    assert len(converters.read(tmp_path, note=notes.append)) == 3
    texts = " ".join(notes)
    assert "the masks of 'new' and 'old' hardly differ, and are read as two classes" in texts
    assert "'lung' hardly" not in texts


@pytest.mark.parametrize(
    ("image", "drawn"), [("images/p{n}", "{name}_masks/p{n}"), ("p{n}", "p{n}_{name}")]
)
def test_what_shows_the_same_objects_is_not_of_classes(
    image: str, drawn: str, tmp_path: Path
) -> None:
    for n in NUMBERS:
        photograph(tmp_path / f"{image.format(n=n)}.png", n)
        for name in ("old", "new"):
            mask(tmp_path / f"{drawn.format(n=n, name=name)}.png", n, "heart")
    with pytest.raises(ValueError, match="expected"):
        converters.read(tmp_path, subset="train")


@pytest.mark.parametrize(("make", "classes"), LAYOUTS.items())
def test_every_mask_finds_its_image(
    make: Callable[[Path], None], classes: tuple[str, ...], tmp_path: Path
) -> None:
    make(tmp_path)
    found = converters.read(tmp_path)
    assert len(found) == len(NUMBERS)
    for number, sample in enumerate(found):
        assert isinstance(sample.image, Path)
        drawn = cv2.imread(str(sample.image), cv2.IMREAD_GRAYSCALE)
        expected = np.random.default_rng(number).integers(0, 255, SIZE)
        np.testing.assert_array_equal(drawn, expected)
        masks = rasterize_labels(sample.instances, SIZE)
        boxes = {name: own.box_xywh for name, own in masks.items()}
        assert tuple(sorted(masks)) == classes
        assert sorted(boxes.values()) == [(s, number + 2, 8, 8) for s in SQUARES.values()]


def test_two_tables_that_name_pairs_are_none(tmp_path: Path) -> None:
    named_by_a_table(tmp_path)
    text = (tmp_path / "dataset.csv").read_text()
    (tmp_path / "other.csv").write_text(text)
    with pytest.raises(ValueError, match="expected"):
        converters.read(tmp_path)


def test_photographs_alone_are_no_pairs(tmp_path: Path) -> None:
    for n in NUMBERS:
        photograph(tmp_path / f"image_{n}.png", n)
        photograph(tmp_path / f"label_{n}.png", 9 + n)
    with pytest.raises(ValueError, match="expected annotations, found only images"):
        converters.read(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plane: np.dstack([plane * 60] * 3 + [plane * 255]), "save masks without an alpha"),
        (None, r"masks/img_0.npy: masks are read from PNG, TIFF, BMP or GIF"),
    ],
)
def test_masks_of_a_kind_that_is_not_read(
    change: Callable[[np.ndarray], np.ndarray] | None, message: str, tmp_path: Path
) -> None:
    plane = np.zeros(SIZE, np.uint8)
    plane[2:9, 3:12] = 1
    for n in NUMBERS:
        photograph(tmp_path / f"images/img_{n}.png", n)
        (tmp_path / "masks").mkdir(exist_ok=True)
        if change is None:
            np.save(tmp_path / f"masks/img_{n}.npy", plane)
        else:
            assert cv2.imwrite(str(tmp_path / f"masks/img_{n}.png"), change(plane))
    with pytest.raises(ValueError, match=message):
        converters.read(tmp_path)


def test_small_numbers_in_a_jpeg_are_told(tmp_path: Path) -> None:
    plane = np.zeros(SIZE, np.uint8)
    plane[2:18, 3:20] = 4
    for n in NUMBERS:
        photograph(tmp_path / f"images/img_{n}.png", n)
        (tmp_path / "masks").mkdir(exist_ok=True)
        assert cv2.imwrite(str(tmp_path / f"masks/img_{n}.jpg"), plane)
    with pytest.raises(ValueError, match="found a JPEG of small numbers"):
        converters.read(tmp_path)


def test_what_nnunet_s_folders_lack_is_told(tmp_path: Path) -> None:
    for n in NUMBERS:
        photograph(tmp_path / f"imagesTr/a{n}_0000.png", n)
        mask(tmp_path / f"labelsTr/a{n}.png", n, *SQUARES)
    with pytest.raises(ValueError, match=r"need a dataset\.json beside them"):
        converters.read(tmp_path)


@pytest.mark.parametrize("is_inverted", [False, True])
def test_black_drawn_on_white_is_told(is_inverted: bool, tmp_path: Path) -> None:
    for n in NUMBERS:
        photograph(tmp_path / f"images/{n}.png", n)
        mask(tmp_path / f"masks/{n}.png", n, "heart")
        if is_inverted:
            plane = cv2.imread(str(tmp_path / f"masks/{n}.png"), cv2.IMREAD_GRAYSCALE)
            assert plane is not None
            assert cv2.imwrite(str(tmp_path / f"masks/{n}.png"), 255 - plane)
    notes: list[str] = []
    converters.read(tmp_path, note=notes.append)
    assert any("exchange black and white" in note for note in notes) == is_inverted


@pytest.mark.parametrize(
    ("text", "name"),
    [("background\nheart\n", "heart"), ("heart\n", "heart"), ("heart\nlung\n", "object")],
)
def test_a_list_of_one_class_names_what_is_drawn(text: str, name: str, tmp_path: Path) -> None:
    for n in NUMBERS:
        photograph(tmp_path / f"images/{n}.png", n)
        mask(tmp_path / f"masks/{n}.png", n, "heart")
    (tmp_path / "classes.txt").write_text(text)
    assert {i.label for s in converters.read(tmp_path) for i in s.instances} == {name}


@pytest.mark.parametrize("other", ["boundary", "edges", "old"])
def test_another_black_and_white_folder_beside_masks_is_left_out(
    other: str, tmp_path: Path
) -> None:
    for n in NUMBERS:
        photograph(tmp_path / f"photos/{n}.png", n)
        mask(tmp_path / f"masks/{n}.png", n, "heart")
        mask(tmp_path / f"{other}/{n}.png", n, "lung")
    found = converters.read(tmp_path)
    assert {i.label for s in found for i in s.instances} == {"object"}
    assert len(found) == len(NUMBERS)


@pytest.mark.parametrize("names", [("logo",), ("mask_1", "mask_2"), ("mask", "contour")])
def test_a_scan_beside_something_black_and_white_has_no_classes_by_that(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    for n in NUMBERS:
        photograph(tmp_path / f"s{n}/scan.png", n)
        for name in names:
            mask(tmp_path / f"s{n}/{name}.png", n, "heart")
    try:
        labels = converters.label_space(tmp_path)
    except ValueError:
        return
    assert labels is None or not set(labels.names) & set(names)


def test_one_grey_jpeg_among_black_and_white_ones_is_empty(tmp_path: Path) -> None:
    for n in NUMBERS:
        photograph(tmp_path / f"images/{n}.png", n)
        (tmp_path / "masks").mkdir(exist_ok=True)
        plane = np.full(SIZE, 2 if n == 0 else 0, np.uint8)
        plane[2:18, 3:20] = 2 if n == 0 else 255
        assert cv2.imwrite(str(tmp_path / f"masks/{n}.jpg"), plane)
    assert [len(s.instances) for s in converters.read(tmp_path)] == [0, 1, 1]
