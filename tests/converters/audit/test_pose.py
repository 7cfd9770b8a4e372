"""Images come onto each other however the hands lie in them."""

from dataclasses import replace

import numpy as np
import pytest

from converters.audit.look import look
from converters.audit.pose import align

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def looks(hands):
    return [look(sample) for sample in hands[:16]]


def moved(one, angle, scale, shift, *, mirror):
    """The look of an image that was turned, scaled, moved and mirrored."""
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if mirror:
        turn = turn @ np.diag([-1.0, 1.0])

    def bone(old):
        line = old.contour.conj()[::-1] * -1 if mirror else old.contour
        return replace(
            old,
            centre=turn @ old.centre + shift,
            spread=turn @ old.spread @ turn.T,
            contour=(line * scale * np.exp(1j * angle)).astype(np.complex64),
            area_px=old.area_px * scale**2,
        )

    return replace(one, structures={label: bone(old) for label, old in one.structures.items()})


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize(("angle", "scale"), [(0.0, 1.0), (0.4, 1.7), (3.0, 0.5)])
def test_a_similarity_of_the_image_changes_nothing(looks, labels, angle, scale, mirror):
    other = moved(looks[3], angle, scale, np.array([40.0, -9.0]), mirror=mirror)
    before = align(looks, labels.names)
    after = align([*looks[:3], other, *looks[4:]], labels.names)
    assert after.centres == pytest.approx(before.centres, abs=1e-3)
    assert after.areas == pytest.approx(before.areas, rel=1e-3)
    assert after.stretch == pytest.approx(before.stretch, abs=1e-3)
    turned = np.flatnonzero(after.is_mirrored != before.is_mirrored).tolist()
    assert turned == ([3] if mirror else [])


def test_both_hands_of_a_person_lie_on_each_other(looks, labels):
    aligned = align(looks, labels.names)
    # Phantoms draw a right and a left hand in turn.
    assert len(set(aligned.is_mirrored[::2])) == len(set(aligned.is_mirrored[1::2])) == 1
    assert aligned.is_mirrored[0] != aligned.is_mirrored[1]


def test_bones_in_wrong_places_hardly_move_a_hand(looks, labels):
    bones = dict(looks[3].structures)
    bones["finger-1"], bones["finger-3"] = bones["finger-3"], bones["finger-1"]
    swapped = replace(looks[3], structures=bones)
    before = align(looks, labels.names)
    after = align([*looks[:3], swapped, *looks[4:]], labels.names)
    rest = [k for k, name in enumerate(labels.names) if name not in ("finger-1", "finger-3")]
    shift = np.abs(after.centres - before.centres)[3, rest]
    assert shift.max() < 0.05 * np.abs(before.centres).mean()


def test_a_missing_bone_stays_missing(looks, labels):
    bones = {label: bone for label, bone in looks[3].structures.items() if label != "Ulna"}
    aligned = align([replace(looks[3], structures=bones), *looks], labels.names)
    missing = np.isnan(aligned.centres.real)
    assert [tuple(at) for at in np.argwhere(missing)] == [(0, labels.index["Ulna"])]
