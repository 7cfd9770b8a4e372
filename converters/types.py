"""What an annotated image is: label space, instances, samples."""

from __future__ import annotations

import hashlib
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol, Self, overload

import numpy as np
import numpy.typing as npt
import shapely
import yaml
from shapely.geometry import GeometryCollection, MultiPolygon, Polygon

import configs
from converters.display import as_html
from converters.errors import did_you_mean
from converters.strict_yaml import read_yaml

# OpenCV draws on 32 bits.
FARTHEST_PX = 1e9
# Names of what is no class, case folded.
NO_CLASS = frozenset(
    {"background", "bg", "none", "void", "unlabeled", "unlabelled", "_background_", "__ignore__"}
)


Painted = Literal["large_first", "as_annotated", "by_class"]
PAINTED: tuple[Painted, ...] = ("large_first", "as_annotated", "by_class")
"""In which order objects are painted where a pixel has one label; what comes later stays.

From the one of the most pixels to the one of the fewest; as they are annotated; or class by class
in the order of the label space.
"""


@dataclass(frozen=True)
class Posture:
    """How to tell a bent joint from a straight one by two objects' long axes.

    Attributes:
        distal: class beyond the joint.
        proximal: class before the joint.
        bent_above_deg: the joint is bent where the axes differ by more than this.
    """

    distal: str
    proximal: str
    bent_above_deg: float


@dataclass(frozen=True)
class LabelSpace:
    """An ordered set of class names and named groups of them.

    Attributes:
        name: such as `hand_bones`.
        names: class names; a class's index is its place here.
        groups: group name -> class names; a class is in at most one group.
        aliases: other data sets' names for these classes -> our name.
        ignored: other data sets' names for what is no class here; such objects are not read.
        posture: how to tell a bent joint, where that makes sense.
        once: every class occurs exactly once in an image.
        background: the class of all pixels that no object covers, in label spaces that score it.
        exclusive: a pixel has one label at most: where objects overlap, they are painted one over
            the other in an order of `PAINTED`. None: classes may share pixels.

    Raises:
        ValueError: names are no tuple of texts, one is empty or comes twice, a group holds an
            unknown or already grouped class, an alias or the posture names an unknown class, or an
            unknown order.

    >>> LabelSpace.load("hand_bones").index["Pisiform"]
    26
    """

    name: str
    names: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    posture: Posture | None = None
    once: bool = False
    ignored: tuple[str, ...] = ()
    background: str | None = None
    exclusive: Painted | None = None
    index: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError(f"label space '{self.name}': expected at least one class, found none")
        are_texts = isinstance(self.names, tuple) and all(isinstance(n, str) for n in self.names)
        if not are_texts:
            raise ValueError(
                f"label space '{self.name}': expected a tuple of texts, found {self.names!r:.80}"
            )
        if not all(name.strip() for name in self.names):
            raise ValueError(f"label space '{self.name}': expected names of classes, found '' too")
        if len(set(self.names)) != len(self.names):
            twice = sorted({n for n in self.names if self.names.count(n) > 1})
            raise ValueError(f"label space '{self.name}': class names come twice: {twice}")
        if self.exclusive not in (None, *PAINTED):
            raise ValueError(
                f"label space '{self.name}': exclusive: expected one of {', '.join(PAINTED)}, or "
                f"true for the first of them, found {self.exclusive!r:.80}"
            )
        grouped = [n for members in self.groups.values() for n in members]
        if unknown := sorted(set(grouped) - set(self.names)):
            raise ValueError(f"label space '{self.name}': groups hold unknown classes {unknown}")
        if len(set(grouped)) != len(grouped):
            raise ValueError(f"label space '{self.name}': a class is in two groups")
        pointed = set(self.aliases.values())
        if self.posture:
            pointed |= {self.posture.distal, self.posture.proximal}
        if self.background is not None:
            pointed.add(self.background)
        if unknown := sorted(pointed - set(self.names)):
            named = "aliases, posture or background"
            raise ValueError(f"label space '{self.name}': {named} name unknown classes {unknown}")
        object.__setattr__(self, "index", {n: i for i, n in enumerate(self.names)})

    def __len__(self) -> int:
        return len(self.names)

    def listed(self) -> str:
        """Return its name and its first classes, for a message.

        >>> LabelSpace("tools", ("cup", "fork")).listed()
        "'tools' (cup, fork)"
        """
        return f"'{self.name}' ({', '.join(self.names):.80})"

    @property
    def may_share(self) -> bool:
        """Whether pixels of two classes may be the same."""
        return self.exclusive is None and len(self) > 1

    def group_of(self, label: str) -> str | None:
        """Return the group that holds `label`, or None."""
        return next((g for g, members in self.groups.items() if label in members), None)

    def only(self, names: Iterable[str]) -> LabelSpace:
        """Return the label space of some of its classes, in its order.

        Raises:
            ValueError: none, or one that it does not have.
        """
        wanted = set(names)
        if unknown := sorted(wanted - set(self.names)):
            raise ValueError(f"expected classes of '{self.name}', found {unknown}")
        kept = tuple(n for n in self.names if n in wanted)
        groups = {g: tuple(n for n in m if n in wanted) for g, m in self.groups.items()}
        posture = self.posture
        if posture and not {posture.distal, posture.proximal} <= wanted:
            posture = None
        return replace(
            self,
            names=kept,
            groups={g: members for g, members in groups.items() if members},
            aliases={alias: n for alias, n in self.aliases.items() if n in wanted},
            posture=posture,
            background=self.background if self.background in wanted else None,
        )

    def canonical(self, name: str) -> str | None:
        """Return our name of a class that is called by its name or an alias; None if unknown."""
        return name if name in self.index else self.aliases.get(name)

    @classmethod
    def load(cls, name: str) -> LabelSpace:
        """Read a shipped label space by name, or one from a YAML file with the same keys.

        Or one from names by their numbers, as Hugging Face's `id2label.json` has them.

        Raises:
            ValueError: no such file, or one with other keys or values.
        """
        path = configs.find("labels", name)
        # What is shipped stays as it is.
        return _load_once(path) if path.parent == configs.ROOT / "labels" else cls._load(path)

    @classmethod
    def _load(cls, path: Path) -> LabelSpace:
        raw = read_yaml(path, "a label space")
        known = ", ".join(sorted(_KEYS))
        if not isinstance(raw, dict):
            raise ValueError(f"{path}: expected keys 'name' and 'names', found {raw!r:.80}")
        if raw and all(str(key).isdecimal() and isinstance(name, str) for key, name in raw.items()):
            names = (raw[key] for key in sorted(raw, key=lambda key: int(key)))
            raw = {"name": path.stem, "names": [n for n in names if n.casefold() not in NO_CLASS]}
        if unknown := [str(key) for key in raw if key not in _KEYS]:
            meant = did_you_mean(unknown[0], _KEYS)
            raise ValueError(f"{path}: unknown key '{unknown[0]}'{meant}; known are {known}")
        try:
            return cls.of_record(raw)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from None

    @classmethod
    def of_record(cls, raw: Mapping[str, Any]) -> LabelSpace:
        """Return the label space that a mapping of plain values describes; see `record`.

        Raises:
            TypeError: values of another type.
            ValueError: values that do not fit together.
        """
        if not isinstance(raw, Mapping):
            raise ValueError(f"expected a label space, found {raw!r:.80}")
        if lacking := [key for key in ("name", "names") if key not in raw]:
            raise ValueError(f"'{lacking[0]}': expected {_KEYS[lacking[0]][1]}, found no such key")
        for key, (kind, what) in _KEYS.items():
            if raw.get(key) and not isinstance(raw[key], kind):
                raise ValueError(f"'{key}': expected {what}, found {raw[key]!r:.80}")
        # YAML takes yes and no for truths.
        if odd := [n for n in raw["names"] if isinstance(n, bool) or not isinstance(n, str | int)]:
            raise ValueError(
                f"'names': expected texts (in quotes if need be), found {odd[0]!r:.80}"
            )
        groups = raw.get("groups") or {}
        if wrong := [g for g, members in groups.items() if not isinstance(members, list)]:
            raise ValueError(
                f"'groups.{wrong[0]}': expected a list, found {groups[wrong[0]]!r:.80}"
            )
        return cls(
            str(raw["name"]),
            tuple(str(name) for name in raw["names"]),
            {str(group): tuple(map(str, members)) for group, members in groups.items()},
            {str(alias): str(name) for alias, name in (raw.get("aliases") or {}).items()},
            Posture(**raw["posture"]) if raw.get("posture") else None,
            raw.get("once") or False,
            tuple(str(name) for name in raw.get("ignored") or ()),
            raw.get("background"),
            PAINTED[0] if raw.get("exclusive") is True else raw.get("exclusive") or None,
        )

    def record(self) -> dict[str, Any]:
        """Return the label space as plain values, without what it has not."""
        record: dict[str, Any] = {"name": self.name, "names": list(self.names)}
        if self.groups:
            record["groups"] = {group: list(members) for group, members in self.groups.items()}
        if self.aliases:
            record["aliases"] = dict(self.aliases)
        if self.posture:
            record["posture"] = asdict(self.posture)
        if self.once:
            record["once"] = True
        if self.ignored:
            record["ignored"] = list(self.ignored)
        if self.background:
            record["background"] = self.background
        if self.exclusive:
            record["exclusive"] = self.exclusive
        return record

    def save(self, path: Path) -> None:
        """Write the label space as a YAML file that `load` reads."""
        text = yaml.safe_dump(self.record(), sort_keys=False, allow_unicode=True)
        path.write_text(text, encoding="utf-8")


_TEXT, _LIST, _MAPPING = (str, "a text"), (list, "a list"), (dict, "keys and values")
# Key of a label space -> the type of its value, and what that is called.
_KEYS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "name": _TEXT,
    "names": _LIST,
    "groups": _MAPPING,
    "aliases": _MAPPING,
    "posture": _MAPPING,
    "once": (bool, "true or false"),
    "ignored": _LIST,
    "background": _TEXT,
    "exclusive": ((bool, str), f"true, or one of {', '.join(PAINTED)}"),
}


DrawnRings = tuple[npt.NDArray[np.float64], ...]
"""An object's polygons as points x, y, float64 (N, 2) each."""


@dataclass(frozen=True)
class Instance:
    """One annotated object: a class name and its outline in pixel coordinates.

    Attributes:
        label: class name.
        geometry: shapely Polygon or MultiPolygon; x right, y down, a pixel's centre at whole
            numbers. Rings may cross themselves: pixels follow OpenCV's even-odd rule.
        drawn: the polygons of its file, float64 (N, 2) each in the same coordinates, where the
            geometry is the outline of the pixels that these have; none where it is drawn itself.
            They may cross themselves and leave the image, and are no part of what makes two objects
            equal. A sample keeps them apart: see `with_drawn`.

    Raises:
        ValueError: no name, an empty geometry, another type, or coordinates that are not finite.
    """

    label: str
    geometry: Polygon | MultiPolygon
    drawn: DrawnRings = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        if not (isinstance(self.label, str) and self.label):
            raise ValueError(f"instance: expected the name of a class, found {self.label!r:.80}")
        if not isinstance(self.geometry, Polygon | MultiPolygon):
            found = type(self.geometry).__name__
            raise ValueError(f"'{self.label}': expected Polygon or MultiPolygon, found {found}")
        if self.geometry.is_empty:
            raise ValueError(f"'{self.label}': expected an outline, found an empty geometry")
        farthest = np.abs(shapely.get_coordinates(self.geometry)).max()
        if not farthest <= FARTHEST_PX:
            raise ValueError(f"'{self.label}': expected finite coordinates, found {farthest:g}")

    @property
    def parts(self) -> tuple[Polygon, ...]:
        """The polygons of which the object consists."""
        if isinstance(self.geometry, Polygon):
            return (self.geometry,)
        return tuple(self.geometry.geoms)


@cache
def _load_once(path: Path) -> LabelSpace:
    return LabelSpace._load(path)


class PackedOutlines(Protocol):
    """How the outlines of an image's objects are kept; equal and hashable by what they are."""

    def __hash__(self) -> int:
        """Return a number that is the same for the same outlines."""

    def unpack(self) -> Sequence[Polygon | MultiPolygon]:
        """Return the outlines, in the order of the objects."""

    def drawn(self) -> Sequence[DrawnRings]:
        """Return what `Instance.drawn` is of each object; not needed to unpack the outlines."""


@dataclass(frozen=True)
class _CompressedOutlines:
    """Outlines as compressed well-known binary: the same to the last bit.

    Attributes:
        content: of the outlines.
        rings: zlib of the points of what is drawn, float64; b"" where nothing is.
        counts: int32, the number of each object's drawn polygons, then of each one's points.
    """

    content: bytes
    rings: bytes = b""
    counts: bytes = b""

    @classmethod
    def of(cls, objects: Sequence[Instance]) -> Self:
        shapes = [one.geometry for one in objects]
        content = zlib.compress(GeometryCollection(shapes).wkb, level=1)
        rings = [ring for one in objects for ring in one.drawn]
        if not rings:
            return cls(content)
        points = zlib.compress(np.concatenate(rings).tobytes(), level=1)
        counts = [*(len(one.drawn) for one in objects), *map(len, rings)]
        return cls(content, points, np.array(counts, np.int32).tobytes())

    def unpack(self) -> Sequence[Polygon | MultiPolygon]:
        shapes = shapely.from_wkb(zlib.decompress(self.content)).geoms
        return list(shapes)

    def drawn(self) -> Sequence[DrawnRings]:
        objects = len(self.unpack())
        if not self.rings:
            return [()] * objects
        points = np.frombuffer(zlib.decompress(self.rings)).reshape(-1, 2)
        counts = np.frombuffer(self.counts, np.int32)
        rings = iter(np.split(points, np.cumsum(counts[objects:])[:-1]))
        return [tuple(islice(rings, own)) for own in counts[:objects].tolist()]


class PackedInstances(Sequence[Instance]):
    """An image's annotated objects in a tenth of the memory: tens of thousands of images fit.

    Equal to the tuple that they were packed from.

    Args:
        instances: the objects.
    """

    __slots__ = ("_labels", "_outlines")

    def __init__(self, instances: Iterable[Instance]) -> None:
        objects = tuple(instances)
        self._keep([one.label for one in objects], _CompressedOutlines.of(objects))

    @classmethod
    def of(cls, labels: Sequence[str], outlines: PackedOutlines) -> PackedInstances:
        """Return objects whose outlines are kept otherwise, until somebody asks for them.

        Args:
            labels: the class of each object.
            outlines: of each object.
        """
        same = object.__new__(cls)
        same._keep(labels, outlines)
        return same

    def _keep(self, labels: Iterable[str], outlines: PackedOutlines) -> None:
        # Readers make a text of each name anew.
        self._labels = tuple(map(sys.intern, labels))
        self._outlines = outlines

    @property
    def labels(self) -> tuple[str, ...]:
        """The class of each object."""
        return self._labels

    @property
    def outlines(self) -> PackedOutlines:
        """What is kept of the objects' outlines."""
        return self._outlines

    def renamed(self, names: Mapping[str, str | None]) -> Sequence[Instance]:
        """Return the objects with other classes' names, without those whose name is None."""
        renamed = [names.get(label) for label in self._labels]
        kept = [name for name in renamed if name is not None]
        if len(kept) == len(renamed):
            return PackedInstances.of(kept, self._outlines)
        pairs = zip(renamed, with_drawn(self), strict=True)
        return tuple(replace(one, label=name) for name, one in pairs if name is not None)

    def __len__(self) -> int:
        return len(self._labels)

    def __iter__(self) -> Iterator[Instance]:
        return iter(_unpack(self._labels, self._outlines))

    @overload
    def __getitem__(self, index: int) -> Instance: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Instance, ...]: ...
    def __getitem__(self, index: int | slice) -> Instance | tuple[Instance, ...]:
        return _unpack(self._labels, self._outlines)[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))


def with_drawn(instances: Sequence[Instance]) -> tuple[Instance, ...]:
    """Return an image's objects with what their file draws, for those who take some of them."""
    if not isinstance(instances, PackedInstances):
        return tuple(instances)
    pairs = zip(instances, instances.outlines.drawn(), strict=True)
    return tuple(replace(one, drawn=own) if own else one for one, own in pairs)


# Who works on an image asks for its objects several times.
@lru_cache(maxsize=64)
def _unpack(labels: tuple[str, ...], outlines: PackedOutlines) -> tuple[Instance, ...]:
    shapes = outlines.unpack()
    return tuple(Instance(label, shape) for label, shape in zip(labels, shapes, strict=True))


class ImageFile(Protocol):
    """What a sample needs to know of its image file; `pathlib.Path` is one."""

    @property
    def name(self) -> str:
        """Base name with suffix."""

    @property
    def stem(self) -> str:
        """Base name without suffix."""

    @property
    def suffix(self) -> str:
        """Suffix with its dot."""

    def read_bytes(self) -> bytes:
        """Read the file's content; raises OSError where there is none."""


class NamedFile:
    """What an `ImageFile` that is no path knows by its name."""

    name: str

    @property
    def stem(self) -> str:
        """Base name without suffix."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """Suffix with its dot."""
        return PurePosixPath(self.name).suffix


@dataclass(frozen=True)
class Frame:
    """Where an image lies in a larger one, the original.

    Attributes:
        box_xywh: the part of the original, in its pixels.
        full_hw: height and width of the original.
        is_stored: the image file holds only this part, at the sample's size; otherwise it holds
            the original, and whoever reads pixels cuts and scales it (`converters.files.images`).

    Raises:
        ValueError: a box that is empty or leaves the original.
    """

    box_xywh: tuple[int, int, int, int]
    full_hw: tuple[int, int]
    is_stored: bool = True

    def __post_init__(self) -> None:
        x, y, width, height = self.box_xywh
        inside = (
            x >= 0 and y >= 0 and x + width <= self.full_hw[1] and y + height <= self.full_hw[0]
        )
        if min(width, height) < 1 or not inside:
            raise ValueError(
                f"frame: expected a box inside {self.full_hw} (height, width), "
                f"found x, y, w, h {self.box_xywh}"
            )


SUBSET = "subset"
"""The attribute of a sample that says to which part of its data set it belongs."""


@dataclass(frozen=True)
class Sample:
    """One image and what is annotated on it.

    Attributes:
        key: the image's path below the data set, with `/`, without its suffix; unique there.
        image: the image file.
        size_hw: height and width in pixels.
        instances: the annotated objects; empty where nothing is annotated. Kept packed, whatever
            is given.
        group: what must not be torn apart by a split, such as the patient.
        attributes: whatever else is known (age, sex, ...); never interpreted here.
        frame: where the image lies in the original, if it is a crop of one. Key, `image.name` and
            group are the original's; size and instances are the crop's.

    Raises:
        ValueError: an empty or absolute key, or a size that is not positive.
    """

    key: str
    image: ImageFile
    size_hw: tuple[int, int]
    instances: Sequence[Instance] = ()
    group: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    frame: Frame | None = None

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.key).parts
        if not self.key or self.key.startswith("/") or ".." in parts:
            raise ValueError(f"sample key: expected a relative path, found '{self.key}'")
        if len(self.size_hw) != 2 or min(self.size_hw) < 1:
            raise ValueError(
                f"{self.key}: expected a positive (height, width), found {self.size_hw}"
            )
        if self.instances and not isinstance(self.instances, PackedInstances):
            object.__setattr__(self, "instances", PackedInstances(self.instances))

    @property
    def labels(self) -> tuple[str, ...]:
        """The class of each object; found without its outline."""
        packed = self.instances
        return packed.labels if isinstance(packed, PackedInstances) else ()

    def as_drawn(self) -> list[tuple[Instance, bool]]:
        """Return the objects by the polygons of their file, and whether their own are others.

        The own geometry of such an object is the outline of pixels.
        """
        found = []
        for one in with_drawn(self.instances):
            polygons = [Polygon(ring) for ring in one.drawn]
            shape = polygons[0] if len(polygons) == 1 else MultiPolygon(polygons)
            found.append((Instance(one.label, shape), True) if polygons else (one, False))
        return found

    @property
    def patient(self) -> str:
        """Whose image it is: its group; where nobody knows that, the image stands for itself."""
        return self.group or self.key

    @property
    def file_name(self) -> str:
        """The image's base name with its suffix, as submissions name it."""
        return self.image.name

    def _repr_html_(self) -> str | None:
        """What a notebook shows: the image with its objects."""
        return as_html(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What IPython prints: no outlines."""
        height, width = self.size_hw
        printer.text(f"Sample({self.key!r}, {height} x {width}, {len(self.instances)} objects)")


def has_twice(labels: Sequence[str]) -> bool:
    """Tell whether several of an image's objects, by the class of each, are of one class."""
    return len(set(labels)) < len(labels)


def digest_samples(samples: Iterable[Sample]) -> str:
    """Return what tells samples, their sizes and outlines from others, as hexadecimal digits."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(f"{sample.key}\0{sample.size_hw}\n".encode())
        for instance in sample.instances:
            digest.update(instance.label.encode())
            digest.update(shapely.to_wkb(instance.geometry))
    return digest.hexdigest()
