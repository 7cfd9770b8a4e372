"""How much images count where bent hands are more frequent among those to fuse."""

import numpy as np
import pytest
from shapely import affinity
from shapely.geometry import box

from converters.masks import rasterize_labels
from converters.types import Instance, LabelSpace, Sample
from fusion.sources.manifest import Manifest
from fusion.sources.store import StoreWriter
from fusion.types import Prediction, SoftMask
from zoo.results.posture_weights import Postures, read_share

SIZE_HW = (120, 160)
HANDS = LabelSpace.load("hand_bones")


def hand(number, bend_deg):
    """A middle metacarpal above a radius; None has no radius."""
    bones = {"finger-11": affinity.rotate(box(70, 10, 80, 50), bend_deg or 0)}
    if bend_deg is not None:
        bones["Radius"] = box(68, 70, 82, 115)
    instances = tuple(Instance(n, o) for n, o in bones.items())
    return Sample(f"ID{number}/image_{number}", None, SIZE_HW, instances, group=f"ID{number}")


def sample_of(bends):
    return [hand(n, bend) for n, bend in enumerate(bends)]


def write(path, samples, labels="hand_bones"):
    """A store whose predictions are true."""
    space = LabelSpace.load(labels)
    images = {s.key: (*s.size_hw, f"{s.key}.png") for s in samples}
    with StoreWriter(path, Manifest("semantic", labels, space.names, images)) as writer:
        for s in samples:
            masks = rasterize_labels(s.instances, s.size_hw)
            full = {n: m.full(s.size_hw) * np.uint8(255) for n, m in masks.items()}
            whole = (0.0, 0.0, float(SIZE_HW[1]), float(SIZE_HW[0]))
            seen = {n: ((1.0, SoftMask(whole, plane)),) for n, plane in full.items()}
            writer.append(Prediction(s.key, s.size_hw, "semantic", seen))
    return path


def test_bent_hands_count_as_often_as_they_will_occur():
    samples = sample_of([0, 40, 3, 8, 0])
    found = Postures.of(samples, HANDS, 0.6)
    assert (found.bent, found.straight) == (1, 4)
    # Straight ones are half as frequent there, bent ones three times.
    assert found.weights / found.weights[0] == pytest.approx([1, 6**0.5, 1, 1, 1])
    assert found.weights.mean() == pytest.approx(1)
    # As uncertain as the mean of (4 + 6 ** .5) ** 2 / (4 + 6) = 4.2 images.
    assert found.describe() == (
        "1 of 5 images are bent, 60% of those to fuse: weighed, they tell what 4 do"
    )


def test_a_hand_without_posture_counts_as_one():
    found = Postures.of(sample_of([0, 40, None, 0]), HANDS, 0.5)
    assert found.weights / found.weights[2] == pytest.approx([0.75**0.5, 1.5**0.5, 1, 0.75**0.5])


def test_all_count_the_same_where_nothing_is_said():
    found = Postures.of(sample_of([0, 40]), HANDS, None)
    assert found.weights.tolist() == [1, 1]
    assert "say so: --bent" in found.describe()
    assert Postures.of(sample_of([0, 0]), HANDS, None).describe() == ""


@pytest.mark.parametrize(
    ("bends", "labels", "said"),
    [
        ([0, 3], "hand_bones", "images of both postures, found 0 bent and 2 straight ones"),
        ([40], "hand_bones", "found 1 bent and 0 straight ones"),
        ([0, 40], "waste", "the label space 'waste' tells no posture"),
    ],
)
def test_what_cannot_be_weighed_is_refused(bends, labels, said):
    with pytest.raises(ValueError, match=said):
        Postures.of(sample_of(bends), LabelSpace.load(labels), 0.5)


def test_a_share_is_a_number_or_counted_in_predictions(tmp_path):
    assert read_share("0.58") == 0.58
    store = write(tmp_path / "test", sample_of([0, 40, 30, 5, None]))
    assert read_share(str(store)) == 0.5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1", "expected a share above 0 and below 1, found 1"),
        ("nan", "expected a share above 0 and below 1, found nan"),
        ("-0.1", "above 0 and below 1, found -0.1"),
        ("nowhere", "expected a share or a prediction store, found 'nowhere'"),
    ],
)
def test_another_share_is_refused(text, said):
    with pytest.raises(ValueError, match=said):
        read_share(text)


@pytest.mark.parametrize(
    ("bends", "labels", "said"),
    [
        ([None], "hand_bones", "expected images in .* that tell their posture, found none"),
        ([0, 0], "hand_bones", "above 0 and below 1, found 0"),
        ([], "waste", "the label space 'waste' tells no posture"),
    ],
)
def test_a_store_that_tells_no_share_is_refused(bends, labels, said, tmp_path):
    store = write(tmp_path / "test", sample_of(bends), labels)
    with pytest.raises(ValueError, match=said):
        read_share(str(store))
