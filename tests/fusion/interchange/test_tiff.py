"""TIFFs of planes or numbers, called as the images are; and files that are not read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from converters.types import LabelSpace, Sample
from fusion.interchange.files.files import open_written
from fusion.interchange.files.written import KnownImages, WrittenPredictions

SIZE_HW = (40, 60)
LABELS = LabelSpace("tools", ("cup", "fork", "pan"))


def known_of(labels: LabelSpace = LABELS) -> KnownImages:
    samples = {key: Sample(key, Path(f"{key}.png"), SIZE_HW) for key in ("a/one", "b/two")}
    return KnownImages(samples, labels, dict(enumerate(labels.names)))


def planes() -> Any:
    found = np.zeros((3, *SIZE_HW), np.float32)
    for number in range(3):
        found[number, 2 : 12 + 5 * number, 10 * number : 10 * number + 8] = 0.8
    return found


def opened(path: Path, said: list[str], labels: LabelSpace = LABELS) -> WrittenPredictions:
    return open_written(path, known_of(labels), Path("data"), note=said.append)


def write(path: Path, values: Any, way: str = "pages") -> None:
    if way == "pages":
        assert cv2.imwritemulti(str(path), list(values))
    elif way == "channels":
        assert cv2.imwrite(str(path), np.ascontiguousarray(np.moveaxis(values, 0, 2)[..., ::-1]))
    else:  # a row a page, as tifffile writes (H, W, C)
        assert cv2.imwritemulti(str(path), list(np.moveaxis(values, 0, 2)))


@pytest.mark.parametrize("way", ["pages", "channels", "rows"])
@pytest.mark.parametrize(("dtype", "full"), [("u1", 255), ("u2", 65535), ("f4", 1), ("f8", 1)])
def test_planes_are_pages_or_channels(way: str, dtype: str, full: int, tmp_path: Path) -> None:
    write(tmp_path / "one.tif", (planes() * full).astype(dtype), way)
    write(tmp_path / "two.tiff", (planes() * 0).astype(dtype), way)
    for path in (tmp_path, tmp_path / "one.tif"):
        said: list[str] = []
        found = opened(path, said)
        assert (found.form, found.kind) == ("arrays", "semantic")
        assert "planes are taken for the data set's classes, 0 cup, 1 fork, 2 pan" in said[0]
        prediction = found.predict("a/one")
        for label, plane in zip(LABELS.names, planes(), strict=True):
            assert prediction.masks[label][0][0] == pytest.approx(0.8, abs=0.01)
            np.testing.assert_array_equal(prediction.binary(label).full(SIZE_HW), plane > 0.5)
    assert not opened(tmp_path, []).predict("b/two").binary("cup").area


def test_what_is_sure_in_16_bits_has_to_show(tmp_path: Path) -> None:
    write(tmp_path / "one.tif", (planes() * 200).astype(np.uint16))
    with pytest.raises(ValueError, match="of which 65535 is 1, found none above 160 in any file"):
        opened(tmp_path, [])
    write(tmp_path / "two.tif", (planes() * 65535).astype(np.uint16))
    assert opened(tmp_path, []).predict("a/one").masks["cup"][0][0] < 0.01


def test_planes_may_be_logits(tmp_path: Path) -> None:
    write(tmp_path / "one.tif", planes() * 10 - 4)
    for path in (tmp_path, tmp_path / "one.tif"):
        found = open_written(path, known_of(), Path("data"), activation="sigmoid")
        score = found.predict("a/one").masks["cup"][0][0]
        assert score == pytest.approx(1 / (1 + np.exp(-4)), abs=0.01)


def test_numbers_are_those_of_classes(tmp_path: Path) -> None:
    values = np.argmax([*np.zeros((1, *SIZE_HW)) + 0.5, *planes()], axis=0)
    for dtype in (np.uint8, np.uint16, np.int32):
        cv2.imwrite(str(tmp_path / "one.tif"), values.astype(dtype))
        found = opened(tmp_path, [])
        assert found.form == "index maps"
        np.testing.assert_array_equal(
            found.predict("a/one").binary("fork").full(SIZE_HW), values == 2
        )
    # Numbers of a palette are no colours.
    image = Image.fromarray(values.astype(np.uint8))
    image.putpalette([200, 100, 50] * 256)
    image.save(tmp_path / "one.tif")
    found = opened(tmp_path, [])
    np.testing.assert_array_equal(found.predict("a/one").binary("fork").full(SIZE_HW), values == 2)


def test_of_one_class_16_bits_are_objects_or_probabilities(tmp_path: Path) -> None:
    labels = LabelSpace("tools", ("cup",))
    values = (planes() > 0).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "one.tif"), (values * [[[1]], [[2]], [[900]]]).sum(0).astype("u2"))
    found = opened(tmp_path, [], labels)
    assert (found.form, len(found.predict("a/one").masks["cup"])) == ("maps of objects", 3)
    cv2.imwrite(str(tmp_path / "two.tif"), values[0] * np.uint16(50000))
    found = opened(tmp_path, [], labels)
    assert found.form == "arrays"
    assert found.predict("b/two").masks["cup"][0][0] == pytest.approx(50000 / 65535, abs=0.01)


def _cut(path: Path) -> None:
    write(path, planes())
    path.write_bytes(path.read_bytes()[:-2000])


def _no_tiff(path: Path) -> None:
    path.write_bytes(b"II*\0 but no more")


def _two_sizes(path: Path) -> None:
    cv2.imwritemulti(str(path), [np.zeros(SIZE_HW, np.uint8), np.zeros((9, 9), np.uint8)])


def _alpha(path: Path) -> None:
    Image.new("RGBA", (60, 40), (200, 100, 50, 20)).save(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_cut, "expected a whole TIFF, found: "),
        (_no_tiff, "expected a"),
        (_two_sizes, r"expected pages of one size and kind, found .*: save it as NPY"),
        (_alpha, "expected pages of one channel, found four of 8 bits: save it as NPY"),
    ],
)
def test_what_cannot_be_read_is_told(make: Any, message: str, tmp_path: Path) -> None:
    make(tmp_path / "one.tif")
    with pytest.raises(ValueError, match=message) as error:
        opened(tmp_path, []).predict("a/one")
    assert str(error.value).startswith(f"{tmp_path / 'one.tif'}: ")
    assert "\n" not in str(error.value)


def test_plots_beside_tiffs_are_passed_over_and_maps_are_not(tmp_path: Path) -> None:
    write(tmp_path / "one.tif", planes())
    cv2.imwrite(str(tmp_path / "loss.png"), np.zeros((9, 9), np.uint8))
    assert opened(tmp_path, []).form == "arrays"
    (tmp_path / "loss.png").unlink()
    cv2.imwrite(str(tmp_path / "one.png"), np.ones(SIZE_HW, np.uint8))
    said: list[str] = []
    assert opened(tmp_path, said).form == "index maps"
    assert "maps are read; left out what may be predictions, too (files: 1, such as" in said[0]


def test_of_other_files_it_is_said_which_and_what_to_do(tmp_path: Path) -> None:
    for name in ("one.nii.gz", "two.nii.gz"):
        (tmp_path / name).write_bytes(b"x")
    for path, named in ((tmp_path, "2 files, such as one.nii.gz"), (tmp_path / "one.nii.gz", "")):
        with pytest.raises(ValueError, match=f"{named}.*: save what other files hold") as error:
            opened(path, [])
        assert str(error.value).startswith(f"{path}: expected COCO results")
        assert "as NPY by numpy.save" in str(error.value)
