"""Bones that are too small, inside others, of odd form, or with metal."""

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from shapely.affinity import scale
from shapely.geometry import Polygon, box

from converters.audit.forms import form_features
from converters.audit.look import look
from converters.audit.search import audit
from converters.audit.shapes import find_inside
from converters.files.images import read_pixels

pytestmark = pytest.mark.slow

BONES = ("finger-2", "finger-10", "Capitate", "Radius")


@pytest.fixture
def spoiled(hands, labels):
    def find(sample, count=40):
        rest = [hand for hand in hands if hand.key != sample.key][: count - 1]
        return [f for f in audit([sample, *rest], [], labels) if f.key == sample.key]

    return find


@pytest.mark.parametrize("label", BONES)
@pytest.mark.parametrize("count", [6, 40])
@pytest.mark.slow
def test_a_tiny_bone_is_found(hands, spoil, spoiled, label, count):
    (bone,) = spoil.polygons(hands[2], label)
    (found,) = spoiled(spoil.redraw(hands[2], label, scale(bone, 0.2, 0.2)), count)
    assert (found.kind, found.labels) == ("tiny", (label,))
    _, _, width, height = found.box_xywh
    assert 1 <= min(width, height) < 20


@pytest.mark.slow
def test_a_bone_inside_another_is_found(hands, spoil, spoiled):
    (around,) = spoil.polygons(hands[2], "finger-6")
    inner = around.buffer(-1.5)
    (found,) = spoiled(spoil.redraw(hands[2], "finger-5", inner))
    assert (found.kind, found.labels) == ("inside", ("finger-5", "finger-6"))


@pytest.mark.slow
def test_where_bones_usually_overlap_it_is_no_finding(hands, labels):
    shares = [look(hand).inside.get(("Pisiform", "Triquetrum"), 0.0) for hand in hands]
    # The premise: in some sound hands the one lies wholly in the other.
    assert max(shares) > 0.98
    assert [f for f in audit(hands, [], labels) if f.kind == "inside"] == []


@dataclass(frozen=True)
class Seen:
    """What `find_inside` looks at."""

    key: str
    structures: dict[str, Any]
    inside: dict[tuple[str, str], float]


@pytest.mark.parametrize(
    ("shares", "found"),
    [
        ([1.0, 0.0, 0.1, 0.0, 0.05, 0.0, 0.0, 0.0, 0.1, 0.0, 0.0, 0.0], 1),
        ([1.0, 0.0, 0.4, 0.5, 0.55, 0.45, 1.0, 0.3, 0.6, 0.5, 0.9, 0.2], 0),
        ([1.0, 0.0, 0.1], 0),
        ([1.0], 0),
    ],
)
def test_what_may_lie_anywhere_is_no_finding(shares, found):
    """As opacities, in one lung or in both; nor what few images show."""
    box_of = SimpleNamespace(box_xywh=(0, 0, 5, 5))
    pair = ("opacity", "lung")
    looks = [Seen(str(n), dict.fromkeys(pair, box_of), {pair: s}) for n, s in enumerate(shares)]
    assert len(list(find_inside(looks))) == found


def upper_half(bone):
    x0, y0, x1, _ = bone.bounds
    return bone.intersection(box(x0, y0, x1, bone.centroid.y))


ODD = {
    "long": lambda bone: scale(bone, 1.0, 1.9),
    "a disc": lambda bone: bone.centroid.buffer((bone.area / np.pi) ** 0.5),
    "cut in half": upper_half,
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("label", ["finger-6", "finger-11"])
@pytest.mark.slow
def test_odd_forms_are_found(hands, spoil, spoiled, name, label):
    (bone,) = spoil.polygons(hands[2], label)
    odd = ODD[name](bone)
    assert isinstance(odd, Polygon)
    found = spoiled(spoil.redraw(hands[2], label, odd))
    assert [(f.kind, f.labels, f.edit) for f in found] == [("outlier", (label,), None)]


@pytest.mark.slow
def test_few_hands_have_no_odd_forms(hands, spoil, spoiled):
    (bone,) = spoil.polygons(hands[2], "finger-6")
    assert spoiled(spoil.redraw(hands[2], "finger-6", ODD["a disc"](bone)), count=15) == []


def test_turned_and_rolled_outlines_have_the_same_form():
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    line = (1 + 0.3 * np.cos(2 * angles) + 0.1 * np.cos(3 * angles)) * np.exp(1j * angles)
    rolled = [np.roll(line, shift) * np.exp(0.4j * shift) for shift in (0, 5, 31)]
    rows = form_features(np.array(rolled), np.array([4.0, 4.0, 4.0]))
    assert rows == pytest.approx(np.repeat(rows[:1], 3, axis=0), abs=1e-9)


@pytest.mark.slow
def test_a_ring_is_found_in_the_image(hands, spoil, spoiled, tmp_path):
    sample = hands[2]
    (bone,) = spoil.polygons(sample, "finger-14")
    pixels = read_pixels(sample)
    x, y = round(bone.centroid.x), round(bone.centroid.y)
    cv2.line(pixels, (x - 9, y), (x + 9, y), 255, 3)
    cv2.imwrite(str(tmp_path / "ring.png"), pixels)
    found = spoiled(replace(sample, image=tmp_path / "ring.png"))
    assert [(f.kind, f.labels) for f in found] == [("outlier", ("finger-14",))]
    assert "ring" in found[0].what


@pytest.mark.slow
def test_a_brighter_exposure_is_no_ring(hands, spoiled, tmp_path):
    pixels = np.clip(read_pixels(hands[2]).astype(np.float32) * 1.15, 0, 255).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "bright.png"), pixels)
    assert spoiled(replace(hands[2], image=tmp_path / "bright.png")) == []
