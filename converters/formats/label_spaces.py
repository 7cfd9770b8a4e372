"""The classes of a data set: as its files name them, and as a user would have them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

import configs
from converters.errors import Problems, did_you_mean
from converters.files.names import normal_name, of_same_numbers
from converters.files.provenance import read_provenance
from converters.types import LabelSpace, PackedInstances, Sample

# Names that are so much alike may be one, misspelt.
_NEARLY = 0.85
NO_CLASSES = (
    "expected objects with names of classes, found none: give --labels, a YAML file with 'name' "
    "and 'names'"
)

# Stands for the classes of files that name none.
_NOBODY = LabelSpace("unknown", ("unknown",))


@dataclass(frozen=True)
class OwnLabels:
    """The classes of a data set. To find them may take as long as to read its masks.

    Attributes:
        named: as its files name them; None where these are numbers.
        fullest: the label space of which the files hold only the names; see `fullest`.
        module: of the format.
        annotations: the one of several annotation files that is meant; None: all.
    """

    named: LabelSpace | None
    fullest: LabelSpace | None
    module: str
    annotations: Path | None = None

    @classmethod
    def of(cls, module: ModuleType, root: Path, annotations: Path | None = None) -> OwnLabels:
        """Ask the files of a data set.

        Args:
            module: of the data set's format.
            root: its folder.
            annotations: the one of several annotation files that is meant; None: all.

        Raises:
            ValueError: the file that names them is broken.
        """
        alone = _alone(annotations)
        named: LabelSpace | None = module.label_space(root, **alone)
        return cls(named, fullest(named, root), module.__name__, annotations)

    def required(self, root: Path) -> LabelSpace:
        """Return the label space; of a data set without names, its numbers are the names.

        Raises:
            ValueError: there is none; where the files are broken, or all objects were left out,
                that is said.
        """
        module = import_module(self.module)
        found = self.fullest or numbered_labels(module, root)
        if found is None:
            no_classes = getattr(module, "NO_CLASSES", NO_CLASSES)
            raise ValueError("; ".join([f"{root}: {no_classes}", *self._look_closer(root)]))
        return found

    def _look_closer(self, root: Path) -> list[str]:
        """Read files that name no class, for what is wrong with them; return what was left out.

        Raises:
            ValueError: they are broken.
        """
        module, problems = import_module(self.module), Problems(root)
        alone = _alone(self.annotations)
        module.read(root, subset="all", labels=_NOBODY, problems=problems, **alone)
        problems.check()
        return [note.removeprefix(f"{root}: ") for note in problems.notes]


def _alone(annotations: Path | None) -> dict[str, Path]:
    return {"annotations": annotations} if annotations else {}


def folder_space(root: Path, names: Iterable[str], ignored: Iterable[str] = ()) -> LabelSpace:
    """Return a label space that is called as a data set's folder.

    Raises:
        ValueError: no class, or one twice.
    """
    try:
        return LabelSpace(root.resolve().name or "mine", tuple(names), ignored=tuple(ignored))
    except ValueError as error:
        raise ValueError(f"{root}: {error}") from None


def numbered_labels(module: ModuleType, root: Path) -> LabelSpace | None:
    """Return the classes that nobody has named, called by their numbers; None without any.

    Args:
        module: of the data set's format.
        root: its folder.

    Raises:
        ValueError: its files cannot be understood.
    """
    find = getattr(module, "numbered_labels", None)
    found: LabelSpace | None = find(root) if find else None
    return found


def fullest(own: LabelSpace | None, root: Path) -> LabelSpace | None:
    """Return the label space of which the files hold only the names.

    That is the one that a data set of ours was written with, or the shipped one that has just these
    classes, with its groups and what else it knows of them.

    Args:
        own: as the files name the classes.
        root: the data set's folder.
    """
    record = read_provenance(root).get("labels")
    if isinstance(record, dict):
        try:
            written = LabelSpace.of_record(record)
        except (KeyError, TypeError, ValueError):
            written = None
        if written and (own is None or set(written.names) == set(own.names)):
            return written
    if own is None:
        return None
    for space in map(LabelSpace.load, configs.names("labels")):
        found = {space.canonical(name) for name in own.names}
        if found == set(space.names) and len(own) == len(space):
            return space
    return own


def shipped_with(names: Iterable[str]) -> LabelSpace | None:
    """Return the smallest shipped label space that has all of these classes; None without one."""
    wanted = set(names)
    spaces = [LabelSpace.load(name) for name in configs.names("labels")]
    return min((s for s in spaces if wanted <= set(s.names)), key=len, default=None)


def natural(names: Iterable[str]) -> tuple[str, ...]:
    """Sort names as people do.

    >>> natural(["finger-10", "finger-9", "Ulna"])
    ('finger-9', 'finger-10', 'Ulna')
    """

    def parts(name: str) -> list[tuple[bool, int, str]]:
        found = re.findall(r"\d+|\D+", name)
        # Of whole numbers the shorter is the smaller; Python refuses those of thousands of digits.
        numbers = [p.lstrip("0") if p.isdecimal() else p.casefold() for p in found]
        is_text = [not p.isdecimal() for p in found]
        return [(t, 0 if t else len(n), n) for t, n in zip(is_text, numbers, strict=True)]

    return tuple(sorted(names, key=lambda name: (parts(name), name)))


def relabel(
    samples: Sequence[Sample],
    own: LabelSpace,
    labels: LabelSpace,
    problems: Problems,
    is_part: bool = False,
) -> list[Sample]:
    """Return samples with the names of a label space; objects of no class of it are left out.

    Args:
        samples: with the names of the files.
        own: these names.
        labels: the label space; it has the classes by name or alias.
        problems: told what was left out, and how many objects.
        is_part: whether the label space is but a part of the data set's own.

    Raises:
        ValueError: the data set has objects, but none of the label space.
    """
    mapping = {name: _canonical(name, labels) for name in own.names}
    if all(name == label for name, label in mapping.items()):
        return list(samples)
    uses = Counter(name for sample in samples for name in sample.labels)
    lost = {name: times for name, times in uses.items() if mapping.get(name) is None}
    if lost and len(lost) == len(uses):
        raise ValueError(
            f"{problems.root}: expected classes of '{labels.name}', found "
            f"{', '.join(own.names):.200}: {remedy(own.names)}{_misspelt(lost, mapping, labels)}"
        )
    told = {name: lost[name] for name in sorted(set(lost) - set(labels.ignored))}
    if told:
        count, (first, *_) = sum(told.values()), told
        each = ", ".join(f"'{name}' {times}" for name, times in told.items())
        of, listed = (f"{len(told)} classes", f": {each}") if len(told) > 1 else (f"'{first}'", "")
        by = "--labels" if is_part else f"'{labels.name}'"
        what = f"left out {count} objects of {of}, not asked for by {by}{listed}"
        problems.note(f"{problems.root}: {what}")
    if meant := _misspelt(lost, mapping, labels):
        problems.note(f"{problems.root}{meant}")
    return [_relabelled(sample, mapping) for sample in samples]


def _misspelt(lost: Iterable[str], mapping: Mapping[str, str | None], labels: LabelSpace) -> str:
    """Name the classes that no object is of, but that are nearly called as some are."""
    unused = [name for name in labels.names if name not in mapping.values()]
    pairs = []
    for name in unused:
        pairs.append((name, did_you_mean(name, of_same_numbers(name, lost), _NEARLY)))
    told = [f"'{name}'{meant}" for name, meant in pairs if meant]
    return f"; '{labels.name}' has classes without objects: {', '.join(told)}" if told else ""


def _relabelled(sample: Sample, mapping: Mapping[str, str | None]) -> Sample:
    if not isinstance(sample.instances, PackedInstances):
        return sample
    return replace(sample, instances=sample.instances.renamed(mapping))


def _canonical(name: str, labels: LabelSpace) -> str | None:
    return labels.canonical(name) or labels.canonical(normal_name(name))


def remedy(names: Sequence[str]) -> str:
    """Say which shipped label spaces have most of these classes, or what else can be done."""
    spaces = [LabelSpace.load(name) for name in configs.names("labels")]
    known = {space.name: sum(map(bool, map(space.canonical, names))) for space in spaces}
    most = max(known.values())
    fitting = [n for n, times in known.items() if 2 * most >= len(names) and times == most]
    if fitting:
        return f"choose --labels {' or '.join(fitting)}"
    return (
        "leave --labels out, if it is given, to take the data's own, or add them as its 'aliases'"
    )
