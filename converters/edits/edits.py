"""Corrections of annotations, applied when a data set is read; its files stay as they are.

    version: 1
    exclude_images: [{key: train/DCM/ID001/image1, why: noise}]
    exclude_groups: [{group: ID005}]
    swap_labels: [{key: train/DCM/ID002/image1, labels: [finger-1, finger-3]}]
    relabel: [{key: train/DCM/ID003/image1, label: finger-1, part: 1, to: finger-2}]
    drop: [{key: train/DCM/ID003/image2, label: finger-5, part: 1}]
    replace: [{key: train/DCM/ID004/image1, label: Ulna, polygons: [[[9, 4], [30, 4], [20, 40]]]}]
    regroup: [{key: train/DCM/ID004/image2, group: ID003}]
    drop_class: [{label: finger-15, keys: [train/DCM/ID006/image1, train/DCM/ID006/image2]}]
    relabel_class: [{label: sesamoid, to: finger-1}]

Every section and every `why` may be left out. `part` counts the polygons of a label in an image
from 0, in the order in which they were read; without it all of them are meant. `replace` puts one
object in the place of all polygons of its label, or adds it where there was none; its polygons are
in the image's pixels. `drop_class` and `relabel_class` speak of all polygons of a label in all
images that have it, or in those that `keys` lists.

There is no order: every entry speaks of the data as they were read, before any other entry. Hence
two entries that speak of the same polygon are an error, and so is one that would be lost: a
correction of an image that is excluded, a label that is moved to where `replace` says what there
is, or an image moved to a group that is excluded. Where every class occurs once
(`LabelSpace.once`), polygons that get the label of another object become parts of it.

An entry that fits nothing is an error, too. It is looked for only where its subset is read: `test`
if one of its key's folders is so called, else `train`; `subset: test` in an entry says otherwise,
which a test image's group needs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path

from shapely.geometry import MultiPolygon, Polygon

from converters.edits.entries import OF_CLASSES, Edit, find_contradictions, read_entries, subset_of
from converters.errors import DataError, Problem, did_you_mean
from converters.formats.plausible import are_normalised, normalised_message
from converters.masks import rasterize
from converters.types import Instance, LabelSpace, Sample, with_drawn


@dataclass(frozen=True)
class Edits:
    """What is wrong in a data set, and what it should be.

    Attributes:
        entries: the corrections.
        name: what errors call them, such as the file.

    Raises:
        DataError: entries that contradict each other.
    """

    entries: tuple[Edit, ...] = ()
    name: str = "edits"

    def __post_init__(self) -> None:
        if problems := list(find_contradictions(self.entries)):
            raise DataError(self.name, problems)

    @classmethod
    def load(cls, path: Path) -> Edits:
        """Read corrections from a YAML file.

        Raises:
            DataError: unknown sections or fields, values of another type, or entries that
                contradict each other, all in one error.
            ValueError: no such file, or not YAML.
        """
        return cls(read_entries(path), str(path))

    @cached_property
    def excluded(self) -> frozenset[str]:
        """Keys and groups that are left out; what is wrong with them does not matter."""
        return self._excluded_keys | self._excluded_groups

    @cached_property
    def _excluded_keys(self) -> frozenset[str]:
        return frozenset(e.key for e in self.entries if e.section == "exclude_images")

    @cached_property
    def _excluded_groups(self) -> frozenset[str]:
        return frozenset(e.fields["group"] for e in self.entries if e.section == "exclude_groups")

    @property
    def digest(self) -> str:
        """SHA-256 of what is corrected, in hexadecimal digits; comments do not change it."""
        content = [[e.section, e.subset, e.fields] for e in self.entries]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def apply(
        self,
        samples: Sequence[Sample],
        *,
        subset: str,
        labels: LabelSpace,
        problems: Collection[Problem] = (),
    ) -> list[Sample]:
        """Return the corrected samples, without those that are excluded.

        Args:
            samples: what was read.
            subset: which part of the data set that is: `train`, `test` or `all`.
            labels: the classes that may occur.
            problems: what is wrong with the data set: an image that could not be read is no sample
                but can be excluded.

        Raises:
            DataError: entries that fit nothing in this subset, all in one error.
        """
        found = list(self._strangers(samples, subset, problems))
        of_images, unused = self._of_images(samples, subset, labels)
        found += [*unused, *find_contradictions(of_images)]
        corrections: dict[str, list[Edit]] = {}
        for edit in of_images:
            corrections.setdefault(edit.key, []).append(edit)
        corrected: list[Sample] = []
        for sample in samples:
            if sample.key in self._excluded_keys:
                continue
            edits = corrections.get(sample.key, [])
            if sample.group in self._excluded_groups:
                found += [f"{e}: its image's group '{sample.group}' is excluded" for e in edits]
                continue
            misfits = [text for edit in edits for text in _misfits(edit, sample, labels)]
            corrected.append(sample if misfits else _correct(sample, edits, labels))
            found += misfits
        if found:
            raise DataError(self.name, found)
        return corrected

    def _of_images(
        self, samples: Sequence[Sample], subset: str, labels: LabelSpace
    ) -> tuple[tuple[Edit, ...], list[str]]:
        """The entries, each about one image; and which of those about a class fit no image."""
        entries, unused = list[Edit](), list[str]()
        for edit in self.entries:
            if edit.section not in OF_CLASSES:
                entries.append(edit)
                continue
            # Said once, not for each of its images.
            if wrong := list(_unknown(_targets(edit), labels)):
                unused += [f"{edit}: {text}" for text in wrong]
                continue
            keys = edit.fields.get("keys") or self._with_label(samples, edit)
            entries += [edit.of_image(key) for key in keys]
            # Test images often have no annotations.
            if not keys and subset != "test" and edit.subset != "test":
                label = edit.fields["label"]
                meant = did_you_mean(label, {i.label for s in samples for i in s.instances})
                unused.append(f"{edit}: expected '{label}' in an image, found none{meant}")
        return tuple(entries), unused

    def _with_label(self, samples: Sequence[Sample], edit: Edit) -> list[str]:
        """Keys of the images that have a class and are not left out."""
        return [
            sample.key
            for sample in samples
            if sample.key not in self._excluded_keys
            and sample.group not in self._excluded_groups
            and edit.subset in ("all", subset_of(sample.key))
            and any(instance.label == edit.fields["label"] for instance in sample.instances)
        ]

    def _strangers(
        self, samples: Sequence[Sample], subset: str, problems: Collection[Problem]
    ) -> Iterator[str]:
        """Entries whose image or group is not there, but should be."""
        keys = {sample.key for sample in samples} | {problem.key for problem in problems}
        groups = {sample.group for sample in samples} | {problem.group for problem in problems}
        where = "the data set"
        if subset != "all":
            other = "test" if subset == "train" else "train"
            where = f"the {subset} images (entries for others say 'subset: {other}')"
        for edit in self.entries:
            if edit.subset != "all" and subset not in (edit.subset, "all"):
                continue
            for key in edit.fields.get("keys", [edit.key] if edit.key else []):
                if key not in keys and subset in ("all", edit.subset_in(key)):
                    yield f"{edit}: expected an image's key, found '{key}', not in {where}"
            if edit.section == "exclude_groups" and (group := edit.fields["group"]) not in groups:
                yield f"{edit}: expected a group, found '{group}', not in {where}"


# --- correcting one sample


def _targets(edit: Edit) -> tuple[str, ...]:
    """Return what an entry makes of its label, if it makes anything of it."""
    return (edit.fields["to"],) if "to" in edit.fields else ()


def _unknown(names: Sequence[str], labels: LabelSpace) -> Iterator[str]:
    """Name those that are no labels."""
    for label in names:
        if label not in labels.index:
            meant = did_you_mean(label, labels.names)
            yield f"expected a label of '{labels.name}', found '{label}'{meant}"


def _misfits(edit: Edit, sample: Sample, labels: LabelSpace) -> Iterator[str]:
    """Say why an entry does not fit its image."""
    where = f"{edit}: {sample.key}"
    for text in _unknown((*edit.labels, *_targets(edit)), labels):
        yield f"{where}: {text}"
    if edit.section == "replace":
        polygons = edit.fields["polygons"]
        geometry = _geometry([Polygon(ring) for ring in polygons])
        flat = [list(chain.from_iterable(ring)) for ring in polygons]
        # Of a crop an object may show no more than a corner.
        if sample.frame is None and are_normalised(flat, sample.size_hw):
            yield f"{where}: {normalised_message(sample.size_hw)}"
        elif not rasterize(geometry, sample.size_hw).area:
            height, width = sample.size_hw
            yield f"{where}: expected polygons in {height} x {width} pixels, found none there"
        return
    for label in edit.labels:
        parts = sum(len(i.parts) for i in sample.instances if i.label == label)
        if not parts:
            present = ", ".join(sorted(set(sample.labels))) or "no label"
            yield f"{where}: expected '{label}' there, found {present}"
        elif edit.part is not None and edit.part >= parts:
            yield f"{where}: expected parts 0 to {parts - 1} of '{label}', found {edit.part}"


def _correct(sample: Sample, edits: Sequence[Edit], labels: LabelSpace) -> Sample:
    if not edits:
        return sample
    group = next((e.fields["group"] for e in edits if e.section == "regroup"), sample.group)
    about = [edit for edit in edits if edit.labels]
    if not about:
        return replace(sample, group=group)
    instances = _relabelled(with_drawn(sample.instances), about)
    for edit in about:
        if edit.section == "replace":
            rings = [Polygon(ring) for ring in edit.fields["polygons"]]
            instances.append(Instance(edit.fields["label"], _geometry(rings)))
    instances.sort(key=lambda instance: labels.index.get(instance.label, len(labels)))
    return replace(
        sample, group=group, instances=tuple(_once(instances) if labels.once else instances)
    )


def _relabelled(instances: Sequence[Instance], edits: Sequence[Edit]) -> list[Instance]:
    """The instances with polygons dropped or under other labels."""
    counts: dict[str, int] = {}
    result: list[Instance] = []
    for instance in instances:
        parts: dict[str, list[Polygon]] = {}
        for polygon in instance.parts:
            number = counts.get(instance.label, 0)
            counts[instance.label] = number + 1
            if label := _new_label(instance.label, number, edits):
                parts.setdefault(label, []).append(polygon)
        if [len(polygons) for polygons in parts.values()] == [len(instance.parts)]:
            # Whole, with what its file draws.
            result.append(replace(instance, label=next(iter(parts))))
        else:
            result += [Instance(label, _geometry(polygons)) for label, polygons in parts.items()]
    return result


def _new_label(label: str, number: int, edits: Sequence[Edit]) -> str | None:
    """The label that a polygon gets; None where it is dropped."""
    for edit in edits:
        if label in edit.labels and edit.part in (None, number):
            if edit.section == "swap_labels":
                return edit.labels[1 - edit.labels.index(label)]
            return edit.fields.get("to")
    return label


def _once(instances: Sequence[Instance]) -> Iterator[Instance]:
    objects: dict[str, list[Instance]] = {}
    for instance in instances:
        objects.setdefault(instance.label, []).append(instance)
    for label, own in objects.items():
        polygons = [polygon for instance in own for polygon in instance.parts]
        yield own[0] if len(own) == 1 else Instance(label, _geometry(polygons))


def _geometry(polygons: Sequence[Polygon]) -> Polygon | MultiPolygon:
    return polygons[0] if len(polygons) == 1 else MultiPolygon(polygons)
