"""Data sets whose images are DICOM: they are read, and written as PNG with what they say."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("pydicom")

from dicom_files import content, dataset

import converters
from converters.files.images import read_pixels
from converters.masks import rasterize_labels

pytestmark = pytest.mark.slow

WRITTEN = [n for n in converters.FORMATS if hasattr(converters.load_format(n), "write")]
# Rows hold images within themselves.
OF_FILES = [name for name in WRITTEN if name != "segformer"]
# Shows 8 bits as they are.
FULL = {"WindowCenter": 128, "WindowWidth": 256}
SPACING = {"ImagerPixelSpacing": [0.14, 0.15]}


def make_dicom(root: Path) -> None:
    """Put DICOM in the place of all images of a data set."""
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        if {"masks", "labelsTr"}.intersection(path.relative_to(root).parts):
            continue
        pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        made = dataset(pixels, bits=8, PatientID=f"SECRET{number}", **FULL, **SPACING)
        path.with_suffix(".dcm").write_bytes(content(made))
        path.unlink()
        for text in root.rglob("*.json"):
            said = text.read_text(encoding="utf-8")
            text.write_text(said.replace(path.name, f"{path.stem}.dcm"), encoding="utf-8")


@pytest.mark.parametrize(("first", "second"), list(product(OF_FILES, WRITTEN)))
def test_every_format_reads_dicom_and_writes_png(first, second, samples, labels, tmp_path):
    samples = samples[:2]
    converters.write(samples, tmp_path / "first", format=first, labels=labels)
    make_dicom(tmp_path / "first")
    between = converters.read(tmp_path / "first", format=first, subset="all", labels=labels)
    assert {sample.image.suffix for sample in between} == {".dcm"}
    converters.write(between, tmp_path / "second", format=second, labels=labels)
    back = converters.read(tmp_path / "second", subset="all", labels=labels)
    assert [s.key for s in back] == [s.key for s in samples]
    for one, other in zip(samples, back, strict=True):
        assert other.image.suffix == ".png"
        assert other.attributes["spacing_mm"] == SPACING["ImagerPixelSpacing"]
        np.testing.assert_array_equal(read_pixels(other), read_pixels(one))
        truth, found = (rasterize_labels(s.instances, s.size_hw) for s in (one, other))
        assert {n: m.area for n, m in found.items()} == {n: m.area for n, m in truth.items()}
    for path in (tmp_path / "second").rglob("*"):
        assert not path.is_file() or b"SECRET" not in path.read_bytes()


@pytest.mark.parametrize("suffix", [".dcm", ".DICOM"])
def test_annotations_of_png_exports_belong_to_the_dicom_files(suffix, samples, labels, tmp_path):
    for form in ("coco", "labelme", "datumaro"):
        root = tmp_path / form
        converters.write(samples[:1], root, format=form, labels=labels)
        before = converters.read(root, labels=labels)
        texts = {path: path.read_text() for path in root.rglob("*.json")}
        make_dicom(root)
        for path, text in texts.items():
            path.write_text(text)
        for path in list(root.rglob("*.dcm")):
            path.rename(path.with_suffix(suffix))
        after = converters.read(root, labels=labels)
        assert [s.image.suffix for s in after] == [suffix]
        assert [(s.key, s.instances) for s in after] == [(s.key, s.instances) for s in before]


def test_crops_keep_the_spacing_of_the_original(samples, labels, tmp_path):
    from converters.crops import crop

    converters.write(samples[:1], tmp_path / "a", format="coco", labels=labels)
    make_dicom(tmp_path / "a")
    (whole,) = converters.read(tmp_path / "a", labels=labels)
    (part,) = crop([whole], [whole.instances[0].label], 2, labels)
    assert part.attributes["spacing_mm"] == whole.attributes["spacing_mm"]
    x, y, width, height = part.frame.box_xywh
    expected = read_pixels(whole)[y : y + height, x : x + width]
    np.testing.assert_array_equal(read_pixels(part), expected)


def test_the_audit_and_the_description_take_them(samples, labels, tmp_path):
    from converters.audit import audit
    from converters.describe import describe

    converters.write(samples, tmp_path / "a", format="labelme", labels=labels)
    before = converters.read(tmp_path / "a", labels=labels)
    findings = audit(before, [], labels)
    make_dicom(tmp_path / "a")
    after = converters.read(tmp_path / "a", labels=labels)
    assert audit(after, [], labels) == findings
    assert describe(after, labels).modes == {"DICOM": len(after)}


def test_a_broken_file_is_one_line(samples, labels, tmp_path):
    converters.write(samples[:2], tmp_path / "a", format="yolo", labels=labels)
    make_dicom(tmp_path / "a")
    victim = next(iter(sorted((tmp_path / "a").rglob("*.dcm"))))
    victim.write_bytes(victim.read_bytes()[:-9])
    with pytest.raises(converters.DataError) as error:
        converters.read(tmp_path / "a", labels=labels)
    assert len(error.value.problems) == 1
    assert "cut off" in error.value.problems[0]


@pytest.mark.parametrize("suffix", [".dcm", ".png"])
@pytest.mark.parametrize("name", OF_FILES)
def test_an_image_that_is_cut_off_is_named_and_can_be_skipped(
    name, suffix, samples, labels, tmp_path
):
    root = tmp_path / name
    converters.write(samples[:2], root, format=name, labels=labels)
    if suffix == ".dcm":
        make_dicom(root)
    whole = converters.read(root, format=name, labels=labels)
    whole[0].image.write_bytes(whole[0].image.read_bytes()[:1000])
    notes: list[str] = []
    kept = converters.read(root, format=name, labels=labels, skips_broken=True, note=notes.append)
    assert [sample.key for sample in kept] == [sample.key for sample in whole[1:]]
    assert len(notes) == 1
    assert "left out 1 broken images: " in notes[0]
    assert "expected a whole image, found one that is cut off" in notes[0]
    told = whole[0].image.name if name != "datumaro" else whole[0].key
    assert told in notes[0]
