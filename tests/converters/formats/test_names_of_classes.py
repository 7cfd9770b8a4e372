"""Names of classes that a format may take for something else: they come back, or are refused."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from shapely.geometry import box

import converters
from converters.masks import rasterize_labels
from converters.types import Instance, LabelSpace, Sample

MODULES = {name: converters.load_format(name) for name in converters.FORMATS}
WRITTEN = [name for name, module in MODULES.items() if hasattr(module, "write")]
# Those of one class have no names to mix up.
LAYOUTS = [
    (name, layout)
    for name in WRITTEN
    for layout in MODULES[name].LOSES
    if layout not in ("dsb2018", "airbus")
]

NAMES = [
    *("background", "Background", "void", "ignore", "unlabeled", "__background__", "object"),
    *("true", "yes", "null", "None", "nan", "-1", "1", "01", "1.0", "~", "#a", "a: b", ".."),
    *("a,b", "a;b", 'a"b', "a/b", "x" * 300, "\u00e9" * 200, "e\u0301", "\ufeffa"),
]
# What a line of labelme's list of labels cannot hold, or what labelme takes for no class.
NO_LINES = [
    *(" a", "a ", "a\t", "\u00e9,;\t", "\u00a0a", "a\nb", "a\rb", "a\u2028b", "a\x0bb"),
    *("__ignore__", "_background_"),
]


@pytest.fixture
def put(tmp_path):
    """Write an image with an object each of some classes; returns its folder."""

    def write(names, format, layout):
        image = tmp_path / "a.png"
        cv2.imwrite(str(image), np.zeros((12, 10 * len(names)), np.uint8))
        boxes = [box(10 * i + 2, 2, 10 * i + 6, 8) for i in range(len(names))]
        instances = tuple(map(Instance, names, boxes))
        sample = Sample("a", image, (12, 10 * len(names)), instances)
        labels, out = LabelSpace("mine", names), tmp_path / "out"
        loss = converters.write([sample], out, format=format, layout=layout, labels=labels)
        assert not loss
        return out

    return write


def assert_read(out, names):
    assert converters.label_space(out).names == names
    (sample,) = converters.read(out)
    masks = rasterize_labels(sample.instances, sample.size_hw)
    assert {name: masks[name].box_xywh for name in names} == {
        name: (10 * i + 2, 2, 5, 7) for i, name in enumerate(names)
    }
    assert sorted(sample.labels) == sorted(names)


@pytest.mark.parametrize(("format", "layout"), LAYOUTS, ids="-".join)
def test_names_come_back(format, layout, put):
    # nnU-Net has a meaning of its own for these two.
    taken = ("background", "ignore") if format == "nnunet" else ()
    names = tuple(name for name in NAMES if name not in taken)
    assert_read(put(names, format, layout), names)


@pytest.mark.parametrize(
    ("format", "layout"), [one for one in LAYOUTS if one[0] != "labelme"], ids="-".join
)
def test_names_that_are_no_line_come_back(format, layout, put):
    names = (*NO_LINES, "a", "a b", "a b ", " a b", "a  b")
    assert_read(put(names, format, layout), names)


@pytest.mark.parametrize("name", NO_LINES, ids=ascii)
def test_names_that_labelme_cannot_hold_are_refused(name, put, tmp_path):
    with pytest.raises(ValueError, match=r"^format 'labelme': expected names of classes") as caught:
        put((name, "cat"), "labelme", "polygons")
    assert repr(name) in str(caught.value)
    assert not (tmp_path / "out").exists()
