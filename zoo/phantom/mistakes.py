"""What annotators do wrong: labels exchanged or forgotten, outlines drawn twice, or badly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import shapely
from shapely.geometry import Polygon

from converters.types import LabelSpace
from zoo.phantom.anatomy import CARPAL, FOREARM, METACARPAL, Array, load_model
from zoo.phantom.annotation import clip_halfplane
from zoo.phantom.config import LABELS

Bones = list[tuple[str, Array]]
"""Label and points (N, 2) of each polygon, in the order of the file; changed in place."""
Mistake = Callable[[Bones, int, np.random.Generator], tuple[str, ...]]
"""Takes bones and the image's side in pixels; gives the labels that are wrong now."""

_NAMES = LabelSpace.load(LABELS).names


def _of_kind(*kinds: int) -> list[str]:
    return [name for name, kind in zip(_NAMES, load_model().kind, strict=True) if kind in kinds]


def _chains() -> list[list[str]]:
    """Bones of each digit from the metacarpal to the tip, thumb first."""
    model = load_model()
    child = {parent: bone for bone, parent in enumerate(model.parent) if parent >= 0}
    chains = []
    for bone, kind in enumerate(model.kind):
        if kind == METACARPAL:
            chain = [bone]
            while chain[-1] in child:
                chain.append(child[chain[-1]])
            chains.append([_NAMES[b] for b in chain])
    return chains


def _one(items: list[str], rng: np.random.Generator) -> str:
    return items[int(rng.integers(len(items)))]


def _rename(bones: Bones, names: dict[str, str]) -> tuple[str, ...]:
    bones[:] = [(names.get(label, label), points) for label, points in bones]
    return tuple(sorted(set(names) | set(names.values()), key=_NAMES.index))


def _swap(bones: Bones, a: str, b: str) -> tuple[str, ...]:
    return _rename(bones, {a: b, b: a})


def _redraw(bones: Bones, label: str, change: Callable[[Array], Array]) -> None:
    """Change the outline of a bone; of one in several parts, the largest, the others go."""
    points = change(_outline(bones, label))
    at = [name for name, _ in bones].index(label)
    bones[:] = [
        (label, points) if i == at else bone
        for i, bone in enumerate(bones)
        if i == at or bone[0] != label
    ]


def _outline(bones: Bones, label: str) -> Array:
    return max((points for name, points in bones if name == label), key=_area)


def _area(points: Array) -> float:
    x, y = points.T
    return 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))


def _scaled(points: Array, centre: Array, share: float) -> Array:
    return centre + share * (points - points.mean(axis=0))


def _axis(points: Array) -> Array:
    """Direction of the longest extent, of length 1."""
    _, vectors = np.linalg.eigh(np.cov(points.T))
    return np.asarray(vectors[:, 1])


# --- labels


def swap_neighbours(bones: Bones, side: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Exchange two bones that follow each other in a digit."""
    chains = _chains()
    chain = chains[int(rng.integers(len(chains)))]
    i = int(rng.integers(len(chain) - 1))
    return _swap(bones, chain[i], chain[i + 1])


def swap_thumb_ends(bones: Bones, side: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Exchange the thumb's tip and its metacarpal."""
    thumb = _chains()[0]
    return _swap(bones, thumb[0], thumb[-1])


def swap_carpals(bones: Bones, side: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Exchange two carpals."""
    carpals = _of_kind(CARPAL)
    a, b = rng.permutation(len(carpals))[:2]
    return _swap(bones, carpals[a], carpals[b])


def swap_digits(bones: Bones, side: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Exchange two fingers that lie side by side, bone by bone."""
    fingers = _chains()[1:]
    i = int(rng.integers(len(fingers) - 1))
    pairs = list(zip(fingers[i], fingers[i + 1], strict=True))
    return _rename(bones, dict(pairs) | {b: a for a, b in pairs})


def turn_thumb(bones: Bones, side: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Give each of the thumb's three bones the label of the next one."""
    thumb = _chains()[0]
    return _rename(bones, dict(zip(thumb, [*thumb[1:], thumb[0]], strict=True)))


def remove(bones: Bones, side: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Leave one bone out."""
    label = _one(list(_NAMES), rng)
    bones[:] = [bone for bone in bones if bone[0] != label]
    return (label,)


def mislabel(bones: Bones, side: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Give a bone the label of its neighbour, which then comes twice."""
    chains = _chains()
    chain = chains[int(rng.integers(len(chains)))]
    i = int(rng.integers(len(chain) - 1))
    return _rename(bones, {chain[i]: chain[i + 1]})


# --- outlines


def draw_twice(bones: Bones, side: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Draw a bone a second time, nearly at the same place."""
    label = _one(list(_NAMES), rng)
    again = _outline(bones, label) + rng.normal(0, 0.002 * side, 2)
    bones.append((label, np.clip(again, 0, side - 1)))
    return (label,)


def draw_elsewhere(bones: Bones, side: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Draw a bone a second time, as a bone of another name."""
    wrong, right = (_NAMES[i] for i in rng.permutation(len(_NAMES))[:2])
    bones.append((wrong, _outline(bones, right).copy()))
    return (wrong,)


def cross(bones: Bones, side: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Walk a stretch of an outline in the wrong direction."""
    label = _one(list(_NAMES), rng)

    def change(points: Array) -> Array:
        length = max(4, round(float(rng.uniform(0.15, 0.35)) * len(points)))
        turned = np.roll(points, -int(rng.integers(len(points))), axis=0)
        return np.vstack([turned[:length][::-1], turned[length:]])

    _redraw(bones, label, change)
    return (label,)


def throw_vertex(bones: Bones, side: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Put one vertex beyond the image."""
    label = _one(list(_NAMES), rng)

    def change(points: Array) -> Array:
        far = points.copy()
        # The vertex nearest to the border goes over it: the outline need not cross itself.
        near = np.minimum(points[:, 0], side - 1 - points[:, 0])
        i = int(near.argmin())
        over = float(rng.uniform(0.02, 0.06)) * side
        far[i, 0] = -over if points[i, 0] < side / 2 else side - 1 + over
        return far

    _redraw(bones, label, change)
    return (label,)


def move_out(bones: Bones, side: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Move a bone so that a half of it lies beyond the image."""
    label = _one(list(_NAMES), rng)

    def change(points: Array) -> Array:
        centre = points.mean(axis=0)
        edge = -1.0 if centre[0] < side / 2 else float(side)
        return points + np.array([edge - centre[0], 0.0])

    _redraw(bones, label, change)
    return (label,)


def make_tiny(bones: Bones, side: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Click a bone's outline in a few pixels."""
    label = _one(list(_NAMES), rng)
    share = float(rng.uniform(0.12, 0.25))
    _redraw(bones, label, lambda points: _scaled(points, points.mean(axis=0), share))
    return (label,)


def put_inside(bones: Bones, side: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Draw a bone wholly inside its neighbour, much in the neighbour's form."""
    rows = [*_chains(), _of_kind(CARPAL)]
    row = rows[int(rng.integers(len(rows)))]
    i = int(rng.integers(1, len(row)))
    around = Polygon(_outline(bones, row[i - 1])).buffer(0)
    share = float(rng.uniform(0.5, 0.8))
    inner = around
    step = 0.01 * around.length
    while inner.area > share * around.area:
        inner = max(shapely.get_parts(inner.buffer(-step)), key=lambda part: part.area)
    _redraw(bones, row[i], lambda _: np.asarray(inner.exterior.coords[:-1]))
    return row[i], row[i - 1]


def stretch(bones: Bones, side: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Draw a bone much broader or longer than it is."""
    label = _one(_inner(), rng)

    def change(points: Array) -> Array:
        axis, centre = _axis(points), points.mean(axis=0)
        if rng.random() < 0.5:
            axis = np.array([-axis[1], axis[0]])
        along = (points - centre) @ axis
        more = float(rng.uniform(0.5, 0.8))
        return np.clip(points + more * along[:, None] * axis, 0, side - 1)

    _redraw(bones, label, change)
    return (label,)


def cut(bones: Bones, side: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Forget a third to a half of a bone."""
    label = _one(_inner(), rng)

    def change(points: Array) -> Array:
        axis = _axis(points) * (1 if rng.random() < 0.5 else -1)
        along = points @ axis
        limit = along.min() + float(rng.uniform(0.35, 0.5)) * np.ptp(along)
        return clip_halfplane(points, axis, float(limit))

    _redraw(bones, label, change)
    return (label,)


def blob(bones: Bones, side: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Draw a bone's place as a careless loop of its area."""
    label = _one(_inner(), rng)

    def change(points: Array) -> Array:
        angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        waves = sum(
            float(rng.uniform(0.08, 0.16)) * np.cos(n * angles + rng.uniform(0, 2 * np.pi))
            for n in (2, 3, 4, 5)
        )
        radius = np.sqrt(_area(points) / np.pi) * (1 + waves)
        loop = radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return np.clip(points.mean(axis=0) + loop, 0, side - 1)

    _redraw(bones, label, change)
    return (label,)


def add_sesamoid(bones: Bones, side: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Count a small round bone beside a metacarpal's head to the metacarpal."""
    chain = _chains()[int(rng.integers(2))]
    points = _outline(bones, chain[0])
    axis, centre = _axis(points), points.mean(axis=0)
    width = float(np.sqrt(_area(points)))
    across = np.array([-axis[1], axis[0]])
    at = centre + 0.5 * axis * width + 0.9 * across * width
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    loop = at + 0.16 * width * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    bones.append((chain[0], np.clip(loop, 0, side - 1)))
    return (chain[0],)


def _inner() -> list[str]:
    """All bones but those that the image's border cuts."""
    return [name for name in _NAMES if name not in _of_kind(FOREARM)]


MISTAKES: dict[tuple[str, str], Mistake] = {
    ("swapped", "neighbours"): swap_neighbours,
    ("swapped", "thumb's ends"): swap_thumb_ends,
    ("swapped", "carpals"): swap_carpals,
    ("swapped", "digits"): swap_digits,
    ("swapped", "thumb turned"): turn_thumb,
    ("missing", "left out"): remove,
    ("missing", "mislabelled"): mislabel,
    ("double", "drawn twice"): draw_twice,
    ("double", "elsewhere"): draw_elsewhere,
    ("crossing", "a stretch turned"): cross,
    ("outside", "one vertex"): throw_vertex,
    ("outside", "moved"): move_out,
    ("tiny", "clicked"): make_tiny,
    ("inside", "in its neighbour"): put_inside,
    ("outlier", "stretched"): stretch,
    ("outlier", "cut"): cut,
    ("outlier", "blob"): blob,
    ("outlier", "sesamoid"): add_sesamoid,
}
