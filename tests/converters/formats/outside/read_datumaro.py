"""Reads a data set with the Datumaro library, writes it again, and prints what it found as JSON.

    PYTHON read_datumaro.py FOLDER OUT

Runs in an environment of its own, because Datumaro's dependencies do not fit ours.
"""

import json
import sys

import numpy as np
from datumaro.components.annotation import AnnotationType
from datumaro.components.dataset import Dataset
from datumaro.components.environment import Environment
from datumaro.util.mask_tools import rles_to_mask
from datumaro.version import __version__


def describe(annotation, names, size_hw):
    found = {
        "type": annotation.type.name,
        "label": names[annotation.label],
        "group": annotation.group,
    }
    if annotation.type == AnnotationType.mask:
        mask = np.asarray(annotation.image)
        return {**found, "shape": mask.shape, "bits": np.packbits(mask).tobytes().hex()}
    points = list(annotation.points)
    pixels = rles_to_mask([points], size_hw[1], size_hw[0])
    return {**found, "points": points, "bits": np.packbits(pixels > 0).tobytes().hex()}


def main(folder, out):
    dataset = Dataset.import_from(folder, "datumaro")
    names = [label.name for label in dataset.categories()[AnnotationType.label]]
    items = [
        {
            "id": item.id,
            "subset": item.subset,
            "size": item.media.size,
            "pixels": np.asarray(item.media.data).shape,
            "annotations": [
                describe(annotation, names, item.media.size) for annotation in item.annotations
            ],
        }
        for item in dataset
    ]
    dataset.export(out, "datumaro", save_media=True)
    detected = Environment().detect_dataset(folder)
    print(json.dumps({"version": __version__, "detected": detected, "items": items}))


if __name__ == "__main__":
    main(*sys.argv[1:])
