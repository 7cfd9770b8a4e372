"""A mask for each image and class, wherever names say which is which."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from converters.types import LabelSpace, Sample
from fusion.interchange.files.files import open_written
from fusion.interchange.files.written import KnownImages, WrittenPredictions

LABELS = LabelSpace("tools", ("Tea Cup", "fork"), aliases={"mug": "Tea Cup"})
SIZE_HW = (40, 60)
KEYS = {"a/one": "one", "a/one_2": "one_2", "b/two": "two"}


@pytest.fixture
def known() -> KnownImages:
    samples = {key: Sample(key, Path(f"{key}.png"), SIZE_HW) for key in KEYS}
    return KnownImages(samples, LABELS, dict(enumerate(LABELS.names)))


def drawn(number: int) -> np.ndarray:
    plane = np.zeros(SIZE_HW, np.uint8)
    plane[5 * number : 5 * number + 12, 8:30] = 255
    return plane


def write(folder: Path, form: str, classes: dict[str, int], values: int = 255) -> None:
    for name in KEYS.values():
        for label, number in classes.items():
            path = folder / form.format(name=name, label=label)
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), drawn(number) // 255 * values)


def opened(folder: Path, known: KnownImages, said: list[str]) -> WrittenPredictions:
    return open_written(folder, known, Path("data"), note=said.append)


FORMS = ("{label}/{name}.png", "{name}/{label}.png", "{name}_{label}.png", "x/{label}/m/{name}.png")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("names", [("Tea Cup", "fork"), ("tea_cup", "FORK"), ("mug", "Fork")])
@pytest.mark.parametrize("values", [1, 255])
def test_masks_are_of_the_image_and_class_that_names_say(
    form: str, names: tuple[str, str], values: int, known: KnownImages, tmp_path: Path
) -> None:
    write(tmp_path, form, dict(zip(names, (1, 2), strict=True)), values)
    said: list[str] = []
    found = opened(tmp_path, known, said)
    assert (found.form, sorted(found.keys), said) == ("masks of classes", sorted(KEYS), [])
    for key in KEYS:
        for label, number in zip(LABELS.names, (1, 2), strict=True):
            mask = found.predict(key).binary(label).full(SIZE_HW)
            np.testing.assert_array_equal(mask, drawn(number) > 0)


def test_levels_are_probabilities(known: KnownImages, tmp_path: Path) -> None:
    write(tmp_path, FORMS[0], {"Tea Cup": 1, "fork": 2}, 100)
    prediction = opened(tmp_path, known, []).predict("b/two")
    assert prediction.masks["fork"][0][0] == pytest.approx(100 / 255)
    assert not prediction.binary("fork").area


TYPES = {
    "png, 16 bits": (".png", np.uint16, 65535),
    "tif, 8 bits": (".tif", np.uint8, 255),
    "TIFF, 16 bits": (".TIFF", np.uint16, 65535),
    "tif, floats": (".tif", np.float32, 1),
    "png, 8 bits in 16": (".png", np.uint16, 255),
}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("form", FORMS)
def test_masks_and_probabilities_are_in_any_type(
    form: str, kind: str, known: KnownImages, tmp_path: Path
) -> None:
    suffix, dtype, full = TYPES[kind]
    # Of one class there is next to nothing, which is no mask of 1.
    for share, folder in ((1.0, "masks"), (0.8, "levels")):
        for name in KEYS.values():
            for label, number in {"tea_cup": 1, "fork": 2}.items():
                path = tmp_path / folder / form.format(name=name, label=label)
                path = path.with_suffix(suffix)
                path.parent.mkdir(parents=True, exist_ok=True)
                values = (drawn(number) > 0) * full * share
                if label == "fork" and folder == "levels":
                    values = (drawn(number) > 0) * (full / 255 if full == 1 else 1)
                cv2.imwrite(str(path), values.astype(dtype))
    masks = opened(tmp_path / "masks", known, [])
    assert masks.form == "masks of classes"
    for label, number in zip(LABELS.names, (1, 2), strict=True):
        for key in KEYS:
            ((score, mask),) = masks.predict(key).masks[label]
            assert score == 1
            np.testing.assert_array_equal(mask.binary(SIZE_HW).full(SIZE_HW), drawn(number) > 0)
    prediction = opened(tmp_path / "levels", known, []).predict("b/two")
    assert prediction.masks["Tea Cup"][0][0] == pytest.approx(0.8, abs=0.01)
    assert not prediction.binary("fork").area


def test_what_is_no_plane_is_told(known: KnownImages, tmp_path: Path) -> None:
    for label in ("fork", "tea_cup"):
        for name in KEYS.values():
            path = tmp_path / label / f"{name}.tif"
            path.parent.mkdir(exist_ok=True)
            cv2.imwrite(str(path), drawn(1).astype(np.float32))
    with pytest.raises(
        ValueError, match=r"one\.tif: expected probabilities from 0 to 1, found 0 to"
    ):
        opened(tmp_path, known, []).predict("a/one")
    cv2.imwrite(str(tmp_path / "fork/one.tif"), np.zeros((*SIZE_HW, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "tea_cup/one.tif"), drawn(1))
    with pytest.raises(ValueError, match=r"one\.tif: expected one channel, found \(40, 60, 3\)"):
        opened(tmp_path, known, []).predict("a/one")
    cv2.imwrite(str(tmp_path / "fork/one.tif"), drawn(1).astype(np.int32))
    with pytest.raises(ValueError, match="expected 8 or 16 bits or floats, found int32"):
        opened(tmp_path, known, []).predict("a/one")


def test_classes_that_are_not_asked_for_or_not_there_are_told(
    known: KnownImages, tmp_path: Path
) -> None:
    write(tmp_path, FORMS[0], {"fork": 1, "plate": 2})
    said: list[str] = []
    found = opened(tmp_path, known, said)
    assert found.classes == ("fork",)
    assert said[0] == f"{tmp_path}: left out plate, not known to 'tools'"
    assert "no object of Tea Cup anywhere" in said[1]
    assert set(found.predict("a/one").masks) == {"fork"}
    (tmp_path / "fork/two.png").unlink()
    with pytest.raises(ValueError, match="expected a mask of 'b/two' of fork, found none"):
        opened(tmp_path, known, said).predict("b/two")


def test_what_is_of_no_image_or_comes_twice_is_refused(known: KnownImages, tmp_path: Path) -> None:
    write(tmp_path, "fold{label}/{name}.png", {"0": 1, "1": 2})
    with pytest.raises(ValueError, match=r"expected one file of .a/one., found fold0/one\.png too"):
        opened(tmp_path, known, [])
    write(tmp_path / "x", "{name}_fork.png", {"": 1})
    cv2.imwrite(str(tmp_path / "x/three_fork.png"), drawn(1))
    with pytest.raises(ValueError, match=r"fork\.png: expected a file called as an image"):
        opened(tmp_path / "x", known, [])
