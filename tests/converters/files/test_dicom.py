"""DICOM images as they are shown, against pydicom's own windows and tables."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("pydicom")

from dicom_files import content, dataset
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi, apply_windowing
from pydicom.uid import (
    MPEG2MPML,
    UID,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    RLELossless,
)

import converters
from converters.audit.images import check_content
from converters.files import dicom
from converters.files.images import image_bytes, image_suffix, is_image, read_pixels, read_size_hw
from converters.splits.grouping import group_by
from converters.types import Frame, Sample

SIZE = (20, 31)
VALUES = np.random.default_rng(0).integers(0, 4096, SIZE).astype(np.uint16)
SIGNED = (VALUES.astype(np.int32) - 2048).astype(np.int16)
WINDOW = {"WindowCenter": 1800, "WindowWidth": 1500}
RESCALE = {"RescaleSlope": 0.5, "RescaleIntercept": -300}


def shown(made: Dataset, **options: Any) -> np.ndarray:
    return dicom.decode_dicom(content(made, **options), grey=True)


def table(bits: int, first: int, data: np.ndarray) -> list[Dataset]:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(data), first, bits])
    item.add_new("LUTData", "US", data.astype(int).tolist())
    return [item]


def nominal_range(made: Dataset) -> tuple[float, float]:
    """What pydicom stretches a window over."""
    sign = made.PixelRepresentation
    ends = np.array([-(2**11), 2**11 - 1] if sign else [0, 2**12 - 1], float)
    low, high = ends * made.get("RescaleSlope", 1) + made.get("RescaleIntercept", 0)
    return float(low), float(high)


WINDOWED = {
    "linear": (VALUES, WINDOW),
    "linear, signed": (SIGNED, {"WindowCenter": 40, "WindowWidth": 400}),
    "rescaled": (VALUES, {**RESCALE, "WindowCenter": 500, "WindowWidth": 900}),
    "several, the first counts": (
        VALUES,
        {"WindowCenter": [1800, 100], "WindowWidth": [1500, 20]},
    ),
    "exact": (VALUES, {**WINDOW, "VOILUTFunction": "LINEAR_EXACT"}),
    "sigmoid": (VALUES, {**WINDOW, "VOILUTFunction": "SIGMOID"}),
    "threshold": (VALUES, {"WindowCenter": 1800, "WindowWidth": 1}),
}


@pytest.mark.parametrize("kind", WINDOWED)
@pytest.mark.parametrize("meaning", ["MONOCHROME2", "MONOCHROME1"])
def test_a_window_is_as_pydicom_has_it(kind, meaning):
    pixels, elements = WINDOWED[kind]
    made = dataset(pixels, PhotometricInterpretation=meaning, **elements)
    low, high = nominal_range(made)
    if kind == "threshold":
        expected = np.where(pixels <= 1799.5, 0, 255)
    else:
        windowed = apply_windowing(apply_modality_lut(pixels, made), made)
        expected = 255 * (windowed - low) / (high - low)
    if meaning == "MONOCHROME1":
        expected = 255 - expected
    assert np.abs(shown(made) - expected).max() <= 0.5 + 1e-6


def test_a_table_goes_before_the_window():
    curve = np.rint(4095 * (np.arange(4096) / 4095) ** 2)
    made = dataset(VALUES, VOILUTSequence=table(12, 0, curve), **WINDOW)
    expected = 255 * apply_voi(VALUES, made).astype(float) / 4095
    assert np.abs(shown(made) - expected).max() <= 0.5 + 1e-6


def test_a_table_begins_where_it_says():
    made = dataset(VALUES, VOILUTSequence=table(8, 2000, np.arange(256)))
    expected = np.clip(VALUES.astype(int) - 2000, 0, 255)
    np.testing.assert_array_equal(shown(made), expected)


def test_the_modality_has_a_table():
    steps = np.arange(4096)[::-1]
    made = dataset(VALUES, ModalityLUTSequence=table(16, 0, steps), **WINDOW)
    np.testing.assert_array_equal(shown(made), shown(dataset(4095 - VALUES, **WINDOW)))


NO_WINDOW: dict[str, dict[str, Any]] = {
    "none": {},
    "without a width": {"WindowCenter": 5},
    "of no width": {"WindowCenter": 5, "WindowWidth": 0},
    "empty": {"WindowCenter": "", "WindowWidth": ""},
}


@pytest.mark.parametrize("kind", NO_WINDOW)
def test_without_a_window_percentiles_count(kind):
    pixels = np.arange(1000, dtype=np.uint16).reshape(20, 50) + 700
    low, high = np.percentile(pixels, [0.5, 99.5], method="inverted_cdf").astype(float)
    expected = 255 * np.clip((pixels - low) / (high - low), 0, 1)
    assert np.abs(shown(dataset(pixels, **NO_WINDOW[kind])) - expected).max() <= 0.5
    assert (low, high) == (704, 1694)


def test_pixels_that_fill_up_the_frame_do_not_count():
    pixels = np.maximum(SIGNED, -1900)
    pixels[:9] = -2000
    inner = shown(dataset(pixels, PixelPaddingValue=-2000))
    np.testing.assert_array_equal(inner[9:], shown(dataset(pixels[9:])))
    assert (inner[:9] == 0).all()


def test_a_plain_image_and_one_that_is_padding_only():
    assert (shown(dataset(np.full(SIZE, 9, np.uint16))) == 0).all()
    assert (shown(dataset(np.full(SIZE, 9, np.uint16), PixelPaddingValue=9)) == 0).all()


def test_bits_that_are_not_stored_do_not_count():
    noisy = VALUES | np.uint16(0xF000)
    np.testing.assert_array_equal(shown(dataset(noisy, **WINDOW)), shown(dataset(VALUES, **WINDOW)))


def test_eight_bits_and_colour():
    grey = (VALUES >> 4).astype(np.uint8)
    full = {"WindowCenter": 128, "WindowWidth": 256}
    np.testing.assert_array_equal(shown(dataset(grey, bits=8, **full)), grey)
    rgb = np.random.default_rng(1).integers(0, 256, (*SIZE, 3), np.uint8)
    found = dicom.decode_dicom(content(dataset(rgb, bits=8)), grey=False)
    np.testing.assert_array_equal(found[..., ::-1], rgb)
    grey_of_it = shown(dataset(rgb, bits=8))
    np.testing.assert_array_equal(grey_of_it, cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))


def encoded(kind: str) -> bytes:
    made = dataset(VALUES, **WINDOW)
    if kind == "run lengths":
        made.compress(RLELossless)
        return content(made)
    if kind == "big endian":
        made = dataset(VALUES.astype(">u2"), **WINDOW)
        made.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        made.PixelData = VALUES.astype(">u2").tobytes()
        return content(made, implicit_vr=False, little_endian=False)
    if kind == "implicit":
        made.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        return content(made, implicit_vr=True)
    plain = content(made)
    # The group of file meta ends where its length says.
    end = 132 + 12 + struct.unpack("<I", plain[140:144])[0]
    return plain[132:] if kind == "no preamble" else plain[end:]


@pytest.mark.parametrize(
    "kind", ["run lengths", "big endian", "implicit", "no preamble", "no preamble, no meta"]
)
def test_ways_in_which_files_are_written(kind, tmp_path):
    (tmp_path / "a.dcm").write_bytes(encoded(kind))
    assert read_size_hw(tmp_path / "a.dcm") == SIZE
    found = read_pixels(Sample("a", tmp_path / "a.dcm", SIZE))
    np.testing.assert_array_equal(found, shown(dataset(VALUES, **WINDOW)))


FROM_VENDORS = [
    "CT_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_jp2klossless.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
]


@pytest.mark.parametrize("name", FROM_VENDORS)
def test_files_of_others(name):
    path = Path(get_testdata_file(name))
    made = dcmread(path)
    size_hw = (made.Rows, made.Columns)
    assert read_size_hw(path) == size_hw
    sample = Sample("a", path, size_hw)
    pixels = read_pixels(sample)
    assert (pixels.shape, pixels.dtype) == (size_hw, np.uint8)
    if made.SamplesPerPixel == 1:
        levels = apply_modality_lut(made.pixel_array, made).ravel()
        assert np.corrcoef(levels, pixels.ravel())[0, 1] > 0.9
    assert read_pixels(sample, grey=False).shape == (*size_hw, 3)


def frames() -> bytes:
    made = dataset(np.concatenate([VALUES, VALUES]), NumberOfFrames=2)
    made.Rows = SIZE[0]
    return content(made)


def compressed(syntax: UID) -> bytes:
    made = dataset(VALUES)
    made.compress(RLELossless)
    made.file_meta.TransferSyntaxUID = syntax
    return content(made)


WHOLE = content(dataset(VALUES))
BAD = {
    "frames": (frames(), "expected one image, found 2 frames: save each as a file of its own"),
    "a report": (
        content(dataset(VALUES, Rows=None, Modality="SR")),
        r"expected an image, found DICOM without one \(modality SR\)",
    ),
    "a palette": (
        content(dataset(VALUES, PhotometricInterpretation="PALETTE COLOR")),
        "found PALETTE COLOR of 16 bits: save it as 8-bit grey or RGB",
    ),
    "32 bits": (content(dataset(VALUES.astype(np.uint32), bits=32)), "MONOCHROME2 of 32 bits"),
    "cut off": (WHOLE[:-1], "expected a whole image, found one that is cut off"),
    "compressed and cut off": (compressed(RLELossless)[:-200], "found one that is cut off"),
    "video": (compressed(MPEG2MPML), r"MPEG2 .* \(1.2.840.10008.1.2.4.100\), which pydicom does"),
    "header": (WHOLE[:200], "expected"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_refused_in_one_line(kind, tmp_path):
    file, message = BAD[kind]
    (tmp_path / "a.dcm").write_bytes(file)
    with pytest.raises(ValueError, match=message) as error:
        read_size_hw(tmp_path / "a.dcm")
    assert len(str(error.value).splitlines()) == 1
    with pytest.raises(ValueError, match=r"a\.dcm: expected"):
        read_pixels(Sample("a", tmp_path / "a.dcm", SIZE))


def test_a_missing_decoder_is_named(tmp_path):
    from pydicom.pixels import get_decoder

    if get_decoder(JPEGLosslessSV1).is_available:
        pytest.skip("it is installed")
    (tmp_path / "a.dcm").write_bytes(compressed(JPEGLosslessSV1))
    with pytest.raises(ValueError, match=r"JPEG Lossless.*\.4\.70\): install python-gdcm>=") as e:
        read_size_hw(tmp_path / "a.dcm")
    assert "pylibjpeg-libjpeg" in str(e.value)


def test_damaged_pixels_are_found(tmp_path):
    file = bytearray(compressed(RLELossless))
    at = file.rindex(b"\xfe\xff\x00\xe0") + 8
    file[at : at + 64] = b"\xff" * 64
    (tmp_path / "a.dcm").write_bytes(file)
    with pytest.raises(ValueError, match="found damaged pixels") as error:
        check_content(tmp_path / "a.dcm")
    assert len(str(error.value).splitlines()) == 1


def test_whole_content_is_no_finding(tmp_path):
    (tmp_path / "a.dcm").write_bytes(WHOLE)
    check_content(tmp_path / "a.dcm")


def test_files_without_a_suffix(tmp_path):
    (tmp_path / "IM001").write_bytes(WHOLE)
    (tmp_path / "DICOMDIR").write_bytes(WHOLE)
    (tmp_path / "README").write_text("none")
    (tmp_path / "folder").mkdir()
    assert [p.name for p in sorted(tmp_path.iterdir()) if is_image(p)] == ["IM001"]
    assert is_image(Path("a.DCM"))
    assert is_image(Path("a.dicom"))


SPACINGS = [
    ({"PixelSpacing": [0.14, 0.15], "ImagerPixelSpacing": [0.2, 0.2]}, [0.14, 0.15]),
    ({"ImagerPixelSpacing": [0.2, 0.2]}, [0.2, 0.2]),
    ({"PixelSpacing": [0, 0], "NominalScannedPixelSpacing": [0.1, 0.1]}, [0.1, 0.1]),
    ({"PixelSpacing": ""}, None),
    ({}, None),
]


@pytest.mark.parametrize(("elements", "expected"), SPACINGS)
def test_spacing(elements, expected):
    file = io.BytesIO(content(dataset(VALUES, **elements)))
    assert dicom.read_spacing_mm(file) == expected


def test_it_is_written_as_png_without_a_header(tmp_path):
    (tmp_path / "a.dcm").write_bytes(content(dataset(VALUES, **WINDOW)))
    sample = Sample("a", tmp_path / "a.dcm", SIZE)
    assert image_suffix(sample) == ".png"
    written = image_bytes(sample)
    assert b"Doe" not in written
    assert b"P7" not in written
    pixels = cv2.imdecode(np.frombuffer(written, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(pixels, read_pixels(sample))
    part = Sample("a", sample.image, (8, 6), frame=Frame((4, 5, 6, 8), SIZE, is_stored=False))
    np.testing.assert_array_equal(read_pixels(part), pixels[5:13, 4:10])


def test_patients_of_headers(tmp_path):
    samples = []
    for number, patient in enumerate(["P1", "P1", "P2"]):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(content(dataset(VALUES, PatientID=patient)))
        samples.append(Sample(path.stem, path, SIZE))
    assert [s.group for s in group_by(samples, "dicom:PatientID")] == ["P1", "P1", "P2"]
    with pytest.raises(ValueError, match="keyword of DICOM's such as PatientID, found 'PatientNo'"):
        group_by(samples, "dicom:PatientNo")
    with pytest.raises(ValueError, match="expected a group of each image, found none of 3: 0, 1"):
        group_by(samples, "dicom:AccessionNumber")
    (tmp_path / "0.dcm").write_bytes(b"none")
    with pytest.raises(ValueError, match=r"0\.dcm: expected DICOM, found another kind of file"):
        group_by(samples, "dicom:PatientID")


def test_without_pydicom_it_is_said(tmp_path, monkeypatch):
    (tmp_path / "a.dcm").write_bytes(WHOLE)
    dicom._pydicom.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(converters.MissingDependency, match=r"pip install 'maskzoo\[dicom\]'"):
        read_size_hw(tmp_path / "a.dcm")
    dicom._pydicom.cache_clear()


RESCALED = {
    "no number": ({"RescaleSlope": "nan"}, "expected RescaleSlope to be a number, found 'nan'"),
    "infinite": ({"RescaleIntercept": "inf"}, "expected RescaleIntercept to be a number"),
    "flat": ({"RescaleSlope": 0}, "expected a rescaling that tells values apart"),
    "too far": ({"RescaleIntercept": "1e99"}, "expected a rescaling that tells values apart"),
    "bits": ({"VOILUTSequence": table(0, 0, np.arange(9))}, "LUTDescriptor to say 8 to 16 bits"),
}


@pytest.mark.parametrize(("elements", "message"), RESCALED.values(), ids=RESCALED)
def test_what_would_be_shown_black_is_refused(elements, message):
    made = dataset(VALUES, bits=12, **{**RESCALE, **elements})
    with pytest.raises(ValueError, match=message):
        shown(made)


def test_pydicom_s_warnings_are_not_shown(recwarn):
    made = dataset(VALUES, bits=12)
    found = content(made).replace(b"\x28\0\x02\0US", b"\x28\0\x08\0IS\x02\x000 \x28\0\x02\0US", 1)
    assert read_size_hw_of(found) == SIZE
    assert dicom.decode_dicom(found, grey=True).shape == SIZE
    assert not list(recwarn)


def read_size_hw_of(found: bytes) -> tuple[int, int]:
    return dicom.read_size_hw(io.BytesIO(found), len(found))
