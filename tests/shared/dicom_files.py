"""DICOM files that tests make."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pydicom")

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

DIGITAL_XRAY = "1.2.840.10008.5.1.4.1.1.1.1"


def dataset(pixels: np.ndarray, bits: int = 12, **elements: Any) -> Dataset:
    """A radiograph of `pixels`, (H, W) or (H, W, 3), with further elements; None leaves one out."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = DIGITAL_XRAY
    made.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["one"])
    made.SOPClassUID, made.SOPInstanceUID = DIGITAL_XRAY, made.file_meta.MediaStorageSOPInstanceUID
    made.PatientID, made.PatientName, made.Modality = "P7", "Doe^Jane", "DX"
    made.Rows, made.Columns = pixels.shape[:2]
    made.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    made.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        made.PlanarConfiguration = 0
    made.BitsAllocated = 8 * pixels.dtype.itemsize
    made.BitsStored, made.HighBit = bits, bits - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    made.PixelData = pixels.tobytes()
    for name, value in elements.items():
        if value is None:
            delattr(made, name)
        else:
            setattr(made, name, value)
    return made


def content(made: Dataset, **options: Any) -> bytes:
    """The file's bytes."""
    file = io.BytesIO()
    made.save_as(file, **{"enforce_file_format": True, **options})
    return file.getvalue()
