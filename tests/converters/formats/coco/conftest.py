"""A small data set in COCO's form, written by hand."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

SIZE = (20, 30)


def write_image(path, size_hw=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full(size_hw, 7, np.uint8))
    return path


class Data:
    """A small data set in COCO's form, written by hand."""

    def __init__(
        self, root, place="annotations/instances_train2017.json", images="images/train2017"
    ):
        self.root, self.place = root, place
        write_image(root / images / "a.png", SIZE)
        self.content = {
            "images": [{"id": 7, "file_name": "a.png", "width": 30, "height": 20}],
            "categories": [{"id": 90, "name": "Ulna"}, {"id": 3, "name": "Radius"}],
            "annotations": [],
        }

    def add(self, segmentation, category=90, **more):
        number = len(self.content["annotations"]) + 1
        entry = {"id": number, "image_id": 7, "category_id": category, "iscrowd": 0}
        self.content["annotations"].append({**entry, "segmentation": segmentation, **more})
        return self

    def save(self):
        path = self.root / self.place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.content), encoding="utf-8")
        return path

    def image(self, place, **entry):
        """Add another image, and its entry where it is given one."""
        write_image(self.root / place)
        if entry:
            name = place.split("/")[-1]
            self.content["images"].append({"file_name": name, **entry})
        return self


@pytest.fixture
def new():
    return Data


@pytest.fixture
def data(tmp_path):
    return Data(tmp_path / "data")
