"""What a viewer was given, opened: a data set, corrections, sources, runs, findings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from converters.audit.findings import Finding
from converters.edits.edits import Edits
from converters.edits.entries import OF_CLASSES, VERSION, Edit, parse_entries
from converters.edits.recording import add_entry, load_or_empty, remove_entry
from converters.errors import Problem
from converters.files.json_files import read_json
from converters.masks import CropMask, class_masks
from converters.types import LabelSpace, Sample, has_twice
from fusion.binary import binary_masks
from fusion.metrics.objects import predicted_objects, true_objects
from fusion.objects import split_masks
from fusion.sources.manifest import ImageEntry
from fusion.types import Prediction
from zoo.report.audit.command import FINDINGS
from zoo.results.sources import give_images
from zoo.runs.table import RunSummary, find_runs
from zoo.viewer.measures import ImageRow, Measurements, Objects, measure_image
from zoo.viewer.places import Places, holds_runs
from zoo.viewer.sources import FusedSource, ImageSource, fused, open_each, space_of

TRUTH = "truth"


@dataclass(frozen=True)
class Shown:
    """An image with all that is drawn on it.

    Attributes:
        key: the image.
        size_hw: in pixels.
        sample: with its objects as they are read, without corrections; None without a data set.
        corrected: with its corrections; None where they leave it out.
        problem: why its corrections do not fit; "" where they do.
        truth: class -> mask, corrected; None where nothing is annotated.
        masks: source -> class -> mask; classes of which it does not speak are absent.
        predictions: source -> what it says.
    """

    key: str
    size_hw: tuple[int, int]
    sample: Sample | None
    corrected: Sample | None
    problem: str
    truth: Mapping[str, CropMask] | None
    masks: Mapping[str, Mapping[str, CropMask]]
    predictions: Mapping[str, Prediction]


@dataclass
class Collection:
    """All that the viewer shows.

    Attributes:
        labels: the classes.
        samples: key -> sample as read, without corrections.
        sources: stores, submissions and at most one fusion, each of another name.
        edits_path: the file of corrections, there or not.
        data: the data set's folder; None without one.
        problems: what cannot be read of it.
        runs: with their curves.
        findings: what audits have found.
        pipelines: folders of `zoo run`.
        run_folders: where runs are looked for.
        notes: what could not be shown, and why.
    """

    labels: LabelSpace
    samples: Mapping[str, Sample]
    sources: Sequence[ImageSource]
    edits_path: Path
    data: Path | None = None
    problems: Sequence[Problem] = ()
    runs: Sequence[RunSummary] = ()
    findings: Sequence[Finding] = ()
    pipelines: Sequence[Path] = ()
    run_folders: Sequence[Path] = ()
    notes: Sequence[str] = ()
    edits: Edits = field(init=False)
    measurements: Measurements = field(init=False)

    def __post_init__(self) -> None:
        self._made: list[tuple[str, str]] = []
        self.edits = load_or_empty(self.edits_path)
        self.measurements = Measurements(self.entries, self.measure)

    @classmethod
    def open(
        cls,
        paths: Sequence[Path],
        edits: Path,
        *,
        data_format: str | None = None,
        labels_name: str | None = None,
        method: str | None = None,
        config: Path | None = None,
    ) -> Collection:
        """Open what is to be shown; images and rasters stay unread.

        Args:
            paths: at most one data set, stores, submissions, folders with runs, audits, pipelines.
            edits: the file of corrections, there or not.
            data_format: the data set's format, where it is not recognised.
            labels_name: the label space.
            method: a fusion rule by name, to fuse the sources with; or give `config`.
            config: a fusion config.

        Raises:
            ValueError: something cannot be read, or does not fit together.
        """
        places = Places.sort(paths, data_format)
        source = places.source(data_format)
        usual = places.usual_labels(source, labels_name)
        labels = space_of(places.sources, usual)
        samples: dict[str, Sample] = {}
        problems: list[Problem] = []
        if source and labels:
            samples, problems = places.scan(source, labels)
        entries = {key: (*s.size_hw, s.file_name) for key, s in samples.items()}
        opened = open_each(places.sources, entries if source else None, labels)
        labels = labels or (opened[0].labels if opened else None)
        findings = [f for folder in places.audits for f in read_findings(folder / FINDINGS)]
        sources: list[ImageSource] = [*opened]
        notes: list[str] = []
        # Of a pipeline its own rule is meant, as far as its models have predicted.
        own = places.rule if not (method or config) and opened else None
        if method or config or own:
            try:
                made = fused(method, config or own, opened, labels or LabelSpace("none", ("none",)))
                sources.append(replace(made, rule=give_images(made.rule, samples or None)))
            except ValueError as error:
                if own is None:
                    raise
                notes.append(f"not fused: {error}")
        return cls(
            labels=labels or LabelSpace("none", ("none",)),
            samples=samples,
            sources=sources,
            edits_path=edits,
            data=places.data,
            problems=problems,
            runs=find_runs(places.runs) if places.runs else (),
            findings=findings,
            pipelines=places.pipelines,
            run_folders=(*places.runs, *places.pipelines),
            notes=notes,
        )

    @cached_property
    def entries(self) -> dict[str, ImageEntry]:
        """Key -> (height, width, file name): the data set's images, else the sources'."""
        if self.samples:
            return {key: (*s.size_hw, s.file_name) for key, s in self.samples.items()}
        return {key: entry for source in self.sources for key, entry in source.images.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """The classes that are drawn: all but that of the background."""
        return tuple(name for name in self.labels.names if name != self.labels.background)

    @property
    def compared(self) -> list[str]:
        """Names of the sources that are compared with each other: all but the fusion."""
        return [source.name for source in self.sources if not isinstance(source, FusedSource)]

    def patient(self, key: str) -> str:
        """Return whose image it is, corrected; "" where nobody knows."""
        sample = self.samples.get(key)
        if sample is None:
            return ""
        moved = [e for e in self.edits.entries if e.section == "regroup" and e.key == key]
        return str(moved[0].fields["group"]) if moved else sample.group

    def is_excluded(self, key: str) -> bool:
        """Tell whether corrections leave an image out."""
        sample = self.samples.get(key)
        group = sample.group if sample else ""
        return key in self.edits.excluded or (bool(group) and group in self.edits.excluded)

    def renew_runs(self) -> None:
        """Look for runs again: a pipeline makes new ones while it is looked at."""
        folders = [folder for folder in dict.fromkeys(self.run_folders) if holds_runs(folder)]
        self.runs = find_runs(folders) if folders else ()

    # --- one image

    def show(self, key: str) -> Shown:
        """Return an image with all that is drawn on it.

        Raises:
            ValueError: no such image, or a source that cannot be read.
        """
        if key not in self.entries:
            raise ValueError(f"expected an image's key, found '{key}'")
        height, width, _ = self.entries[key]
        size_hw = (height, width)
        sample = self.samples.get(key)
        corrected, problem = (None, "") if sample is None else self.correct(sample)
        truth = None
        if sample is not None and sample.instances:
            # Of an image that is left out the page shows what was there.
            objects = (corrected or sample).instances
            truth = self._drawn(class_masks(objects, size_hw, self.labels, False))
        predictions = self._read(key, size_hw)
        masks = {
            name: self._drawn(binary_masks(one, self.labels), one.classes)
            for name, one in predictions.items()
        }
        return Shown(key, size_hw, sample, corrected, problem, truth, masks, predictions)

    def _read(self, key: str, size_hw: tuple[int, int]) -> dict[str, Prediction]:
        found = {}
        for source in self.sources:
            prediction = source.read(key)
            if prediction is None:
                continue
            if tuple(prediction.size_hw) != size_hw:
                raise ValueError(
                    f"{source.name}: '{key}' was predicted at {prediction.size_hw}, the image is "
                    f"{size_hw}; take the data set that was predicted"
                )
            found[source.name] = prediction
        return found

    def _drawn(
        self, masks: Mapping[str, CropMask], classes: frozenset[str] | None = None
    ) -> dict[str, CropMask]:
        return {
            name: masks[name]
            for name in self.names
            if name in masks and (classes is None or name in classes)
        }

    @cached_property
    def has_several(self) -> bool:
        """Whether an image has several true objects of a class."""
        return not self.labels.once and any(has_twice(s.labels) for s in self.samples.values())

    def measure(self, key: str) -> ImageRow:
        """Measure an image's classes, and their objects one by one where there are several.

        Raises:
            ValueError: as `show`.
        """
        shown = self.show(key)
        real, found = self._objects(shown) if self.has_several else (None, None)
        return measure_image(key, shown.truth, shown.masks, self.names, self.compared, found, real)

    def _objects(self, shown: Shown) -> tuple[Objects | None, dict[str, Objects]]:
        """An image's true objects by class, and each source's, as reports count them."""
        sample, real = shown.corrected or shown.sample, None
        if sample is not None and shown.truth is not None:
            real = true_objects(sample, self.labels, shown.truth)
        fusion = next((one for one in self.sources if isinstance(one, FusedSource)), None)
        found: dict[str, Objects] = {}
        for name, masks in shown.masks.items():
            if fusion is not None and name == fusion.name:
                fused = [shown.predictions[part.name] for part in fusion.parts]
                found[name] = split_masks(masks, fused, self.labels)
            else:
                found[name] = predicted_objects(shown.predictions[name], self.labels, masks)
        return real, found

    # --- corrections

    def correct(self, sample: Sample) -> tuple[Sample | None, str]:
        """Apply the corrections that are about an image.

        Returns:
            The corrected sample, None where it is left out; and why they do not fit, or "".
        """
        about = [edit for entry in self.edits.entries for edit in _about(entry, sample)]
        if any(edit.section in _EXCLUDES for edit in about):
            # A class is corrected in the images that are left.
            about = [edit for edit in about if not edit.origin]
        if not about:
            return sample, ""
        try:
            chosen = Edits(tuple(about), self.edits.name)
            corrected = chosen.apply([sample], subset="all", labels=self.labels)
        except ValueError as error:
            return sample, str(error)
        return (corrected[0] if corrected else None), ""

    def edit(self, section: str, entry: Mapping[str, Any]) -> None:
        """Add a correction to the file, if it fits.

        Raises:
            ValueError: it contradicts another one, or does not fit the image; the file stays.
        """
        sample = self.samples.get(str(entry.get("key", "")))
        if sample is not None:
            entries = parse_entries({"version": VERSION, section: [dict(entry)]}, _THIS)
            Edits(entries, _THIS).apply([sample], subset="all", labels=self.labels)
        self._took(add_entry(self.edits_path, section, entry))
        self._made.append((section, _content(self._entries(section)[-1])))

    def undo_last(self) -> str:
        """Take back the newest of the corrections made here that the file still has.

        Returns:
            What it was, in words; "" where nothing is left to take back.
        """
        while self._made:
            section, content = self._made.pop()
            same = [e for e in self._entries(section) if _content(e) == content]
            if same:
                self.undo(section, same[-1].number)
                return f"{section}: {describe_fields(same[-1].fields)}"
        return ""

    def _entries(self, section: str) -> list[Edit]:
        return [entry for entry in self.edits.entries if entry.section == section]

    def undo(self, section: str, number: int) -> None:
        """Take a correction out of the file.

        Raises:
            ValueError: there is none any more.
        """
        self._took(remove_entry(self.edits_path, section, number))

    def refresh(self) -> None:
        """Read the file of corrections again, which people may have changed.

        Raises:
            ValueError: it is no file of edits any more; what was read before holds.
        """
        found = load_or_empty(self.edits_path)
        if found.digest != self.edits.digest:
            self._took(found)

    def _took(self, found: Edits) -> None:
        before, self.edits = self.edits, found
        known = {_content(entry) for entry in before.entries}
        now = {_content(entry) for entry in found.entries}
        changed = [e for e in (*before.entries, *found.entries) if _content(e) in known ^ now]
        self.measurements.renew(
            key
            for key, sample in self.samples.items()
            if any(True for entry in changed for _ in _about(entry, sample))
        )


_THIS = "this correction"
_EXCLUDES = ("exclude_images", "exclude_groups")


def describe_fields(fields: Mapping[str, Any]) -> str:
    """Return what a correction says, in words.

    >>> describe_fields({"key": "a/b", "labels": ["Ulna", "Radius"], "part": 0})
    'key a/b, labels Ulna and Radius, part 0'
    """
    texts = {
        name: " and ".join(map(str, value)) if _is_names(value) else str(value)
        for name, value in fields.items()
    }
    return ", ".join(f"{name} {text:.60}" for name, text in texts.items())


def _is_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)


def _content(entry: Edit) -> str:
    return f"{entry.section} {sorted(entry.fields.items())}"


def _about(entry: Edit, sample: Sample) -> list[Edit]:
    """What an entry says of one image, so that it can be applied to that one alone."""
    if entry.section in OF_CLASSES:
        keys = entry.fields.get("keys")
        labels = set(sample.labels) if keys is None else set()
        is_meant = sample.key in keys if keys is not None else entry.fields["label"] in labels
        is_there = entry.subset in ("all", entry.subset_in(sample.key))
        return [entry.of_image(sample.key)] if is_meant and is_there else []
    if entry.section == "exclude_groups":
        return [entry] if entry.fields["group"] == sample.group else []
    return [entry] if entry.key == sample.key else []


def read_findings(path: Path) -> list[Finding]:
    """Read what an audit has written.

    Raises:
        ValueError: not a list of findings; names the file and the finding.
    """
    raw = read_json(path, "what `zoo audit` writes, a list of findings")
    if not isinstance(raw, list):
        raise ValueError(f"{path}: expected a list of findings, found {raw!r:.80}")
    found = []
    for number, record in enumerate(raw):
        try:
            found.append(_finding(record))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: finding {number}: {error}") from None
    return found


def _finding(record: Any) -> Finding:
    if not isinstance(record, dict):
        raise ValueError(f"expected an object, found {record!r:.80}")
    box = record.get("box_xywh")
    lists: dict[str, Callable[[Any], Any]] = {"labels": tuple, "others": tuple}
    values = {name: lists[name](v) if name in lists else v for name, v in record.items()}
    return Finding(**{**values, "box_xywh": tuple(box) if box else None})
