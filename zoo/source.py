"""A data set as a command is given it: a folder, its format, and corrections."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import configs
import converters
from converters.edits.edits import Edits
from converters.errors import DataError, Problem, did_you_mean
from converters.files.images import has_colors, read_pixels
from converters.files.provenance import require_provenance
from converters.formats.label_spaces import OwnLabels
from converters.splits.grouping import known_groups, with_groups
from converters.splits.split import Split
from converters.subsets.names import part_of
from converters.types import LabelSpace, Sample
from zoo.corrected import CorrectedImages
from zoo.progress import note

# The format of images of which nothing is known.
_IMAGES = "images"
# How many images are looked at for colours.
_LOOKED_AT = 12


@dataclass(frozen=True)
class DataSource:
    """Where annotated images come from.

    Attributes:
        path: the data set's folder.
        format: the format's name.
        edits: corrections, applied to all that is read; None leaves it as it is.
        chosen: the classes that the user asks for; None takes the data set's own.
        groups: key -> patient, where the files do not say it.
        skips_broken: leave out images of which something is broken, instead of refusing.
        held_out: the folds whose images are the subset `val`, and which of them; None is all.
        images: a folder with the images, where they do not lie with the annotations.
        annotations: the one of its annotation files that alone is read; None: all.
    """

    path: Path
    format: str
    edits: Edits | CorrectedImages | None = None
    chosen: LabelSpace | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    skips_broken: bool = False
    held_out: tuple[Split, int | None] | None = None
    images: Path | None = None
    annotations: Path | None = None
    _found: dict[tuple[str, str], OwnLabels] = field(
        default_factory=dict, repr=False, compare=False
    )
    _colored: dict[tuple[str, str], bool] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(
        cls,
        path: Path,
        data_format: str | None = None,
        edits: Path | None = None,
        broken: str = "refuse",
        images: Path | None = None,
    ) -> DataSource:
        """Find out the format and read the corrections.

        Args:
            path: the data set's folder, or one of its annotation files, which alone is read.
            data_format: its format; None recognises it.
            edits: a YAML file of corrections, or a data set of corrected images.
            broken: `refuse` or `skip`: images of which something is broken.
            images: a folder with the images, where they do not lie with the annotations.

        Raises:
            ValueError: a folder in no known format, or bad corrections.
        """
        place = converters.locate(path, data_format)
        if place.annotations:
            note(f"{place.annotations}: what it names is read, nothing else of {place.folder}")
        corrections = read_corrections(edits) if edits else None
        return cls(
            place.folder,
            place.format,
            corrections,
            skips_broken=broken == "skip",
            images=images,
            annotations=place.annotations,
        )

    @property
    def place(self) -> Path:
        """What names the data set: its folder, or the annotation file that alone is read."""
        return self.annotations or self.path

    def uncorrected(self) -> DataSource:
        """Return the same without its corrections."""
        return replace(self, edits=None)

    @property
    def own_labels(self) -> LabelSpace:
        """The data set's own classes; raises ValueError where its files do not name them."""
        return self._own().required(self.path)

    def _own(self) -> OwnLabels:
        # Once for all that are made of this one: to find them may take as long as to read.
        place = str(self.place), self.format
        if place not in self._found:
            self._found[place] = converters.own_labels(self.place, format=self.format)
        return self._found[place]

    @property
    def has_only_images(self) -> bool:
        """Whether nothing is annotated, so that there are no classes."""
        return self.format == _IMAGES

    @property
    def classes(self) -> LabelSpace:
        """The classes that are asked for, or all of its own."""
        return self.chosen or self.own_labels

    def choosing(self, given: str | None) -> DataSource:
        """Return the same with the classes that are asked for; see `labels`."""
        return replace(self, chosen=self.labels(given)) if given else self

    def of_split(self, path: Path | None) -> DataSource:
        """Return the same with a split's patients, and its classes where none are asked for."""
        if path is None:
            return self
        split = Split.load(path)
        return replace(self, chosen=self.chosen or split.labels).of_groups(split.groups)

    def holding_out(self, path: Path, fold: int | None = None) -> DataSource:
        """Return the same with the subset `val`: what a fold of a split holds out, or all of them.

        The split's patients and classes come with it, as in `of_split`.

        Raises:
            ValueError: no split, or none with this fold.
        """
        split = Split.load(path)
        if fold is not None:
            split.val(fold)
        chosen = self.chosen or split.labels
        return replace(self, held_out=(split, fold), chosen=chosen).of_groups(split.groups)

    def of_groups(self, groups: Mapping[str, str]) -> DataSource:
        """Return the same with patients where its files know none, key -> patient."""
        return replace(self, groups=known_groups(groups))

    def labels(self, given: str | None = None) -> LabelSpace:
        """Return the classes that are asked for.

        Args:
            given: a shipped label space, a YAML file of one, or some of the data set's own classes
                and groups, with commas, or any where there are but images; None is all of its own.

        Raises:
            ValueError: it is none of these.
        """
        if not given:
            return self.classes
        names = [name.strip() for name in given.split(",") if name.strip()]
        is_file = given in configs.names("labels") or given.endswith((".yaml", ".yml", ".json"))
        if is_file or not names:
            return LabelSpace.load(given)
        if self.has_only_images:
            # What has no classes of its own has those that it is told.
            return LabelSpace("labels", tuple(dict.fromkeys(names)))
        own = self.own_labels
        found: list[str] = []
        for name in names:
            label = own.canonical(name)
            if label is None and name not in own.groups:
                known = (*own.groups, *own.names)
                spaces = configs.names("labels") if len(names) == 1 else ()
                meant = did_you_mean(name, [*spaces, *known], 0.5)
                raise ValueError(
                    f"--labels: '{name}'{meant}: expected a YAML file, one of "
                    f"{', '.join(configs.names('labels'))}, or some of the data set's own classes: "
                    f"{', '.join(known):.200}"
                )
            found += own.groups[name] if label is None else (label,)
        return own.only(found)

    def read(
        self,
        labels: LabelSpace,
        subset: str = "train",
        tell: Callable[[str], None] = note,
    ) -> list[Sample]:
        """Read and correct a subset's samples, sorted by key; as `converters.read`.

        The subset `val` is that of `holding_out`, in the order of its folds. `tell` is told of what
        has to be said, such as files that were left out.

        Raises:
            ValueError: as `converters.read`, or a split of other images.
        """
        if subset == "val" and self.held_out:
            return self._read_held_out(labels, *self.held_out, tell)
        found = converters.read(
            self.place,
            format=self.format,
            subset=subset,
            labels=labels,
            edits=self.edits,
            note=tell,
            skips_broken=self.skips_broken,
            own=self._own(),
            images=self.images,
        )
        return with_groups(found, self.groups) if self.groups else found

    def scan(
        self,
        labels: LabelSpace,
        subset: str = "all",
        note: Callable[[str], None] | None = None,
    ) -> tuple[list[Sample], list[Problem]]:
        """Read what can be read, uncorrected, and say what cannot; as `converters.scan`."""
        return converters.scan(
            self.place,
            format=self.format,
            subset=subset,
            labels=labels,
            note=note,
            own=self._own(),
            images=self.images,
        )

    def list_images(self, subset: str = "train", labels: LabelSpace | None = None) -> list[Sample]:
        """List a subset's images, sorted by key; their objects are left out where masks hold them.

        Where there are corrections, or broken images to skip, all is read: only the objects tell
        which images stay.

        Args:
            subset: `train`, `test` or `all`.
            labels: the classes, where objects are read; None takes those of `labels`.

        Raises:
            ValueError: as `converters.list_images`.
        """
        lists = hasattr(converters.load_format(self.format), "list_images")
        if not lists or self.edits or self.skips_broken:
            return self.read(labels or self.labels(), subset)
        found = converters.list_images(self.place, format=self.format, subset=subset, note=note)
        return with_groups(found, self.groups) if self.groups else found

    @property
    def is_test_alone(self) -> bool:
        """Whether a file of test images is named, which then are of whatever part is asked for."""
        name = self.annotations.name if self.annotations else ""
        return part_of(name) == "test"

    def nothing_in(self, subset: str, left: str = "") -> ValueError:
        """Return what to say where a subset is empty, with how many images are of the other part.

        Args:
            subset: `train`, `test` or `all`.
            left: why some may be missing, in words.
        """
        text = f"{self.path}: expected images of the subset '{subset}'{left}, found none"
        other = {"train": "test", "test": "train"}.get(subset, "")
        with suppress(DataError):  # of the other part
            if other and not left and (there := len(self.list_part(other))):
                what = "test images" if other == "test" else "images to learn from"
                text += f", but {there} {what}: --subset {other}"
        return ValueError(text)

    def list_part(self, subset: str, labels: LabelSpace | None = None) -> list[Sample]:
        """List a subset's images as `list_images` does; none where there is no such part.

        Where a file of test images alone is named there is no other part.

        Raises:
            DataError: files that are broken or do not fit together.
        """
        if subset == "test" and self.is_test_alone:
            return []
        try:
            return self.list_images(subset, labels)
        except DataError:
            raise
        except ValueError:  # some formats refuse where there are none
            return []

    def scan_test(self, labels: LabelSpace) -> list[Sample]:
        """Read what can be read of the test images, uncorrected; none where there are none."""
        try:
            return self.scan(labels, "test")[0]
        except ValueError:  # some formats refuse where there are none
            return []

    def count_tests(self, labels: LabelSpace) -> int:
        """Count the test images that can be read, whatever corrections say of them."""
        if self.is_test_alone:
            return 0
        if not hasattr(converters.load_format(self.format), "list_images"):
            return len(self.scan_test(labels))
        try:
            return len(converters.list_images(self.place, format=self.format, subset="test"))
        except ValueError:  # some formats refuse where there are none
            return 0

    def _read_held_out(
        self, labels: LabelSpace, split: Split, fold: int | None, tell: Callable[[str], None]
    ) -> list[Sample]:
        found = self.read(labels, tell=tell)
        split.check(found, self.excluded)
        by_key = {sample.key: sample for sample in found}
        keys = split.held_out if fold is None else split.val(fold)
        return [by_key[key] for key in keys if key in by_key]

    def annotated(self, labels: LabelSpace, subset: str = "all") -> dict[str, Sample]:
        """Read the samples that have truth, by key.

        Raises:
            ValueError: no sample has.
        """
        found = {sample.key: sample for sample in self.read(labels, subset) if sample.instances}
        if not found:
            raise ValueError(f"{self.path}: expected annotated images, found none")
        return found

    @property
    def excluded(self) -> frozenset[str]:
        """Keys and groups that corrections exclude, now or when the data set was written."""
        before = require_provenance(self.path).get("excluded", [])
        return frozenset(before if isinstance(before, list) else ()) | (
            self.edits.excluded if self.edits else frozenset()
        )

    @property
    def around(self) -> tuple[str, ...]:
        """Classes and groups that its images are crops around; empty for whole images."""
        config = require_provenance(self.path).get("config")
        crop = config.get("crop") if isinstance(config, dict) else None
        found = crop.get("around") if isinstance(crop, dict) else None
        return tuple(map(str, found)) if isinstance(found, list) else ()

    @property
    def is_colored(self) -> bool:
        """Whether any of a dozen training images, spread over the data set, has colours."""
        # Once for all that are made of this one, such as the folds'.
        place = str(self.place), self.format
        if place not in self._colored:
            self._colored[place] = self._look_for_colors()
        return self._colored[place]

    def _look_for_colors(self) -> bool:
        if hasattr(converters.load_format(self.format), "list_images"):
            samples = converters.list_images(self.place, format=self.format)
        else:
            samples, _ = converters.scan(
                self.place, format=self.format, own=self._own(), images=self.images
            )
        step = max(len(samples) // _LOOKED_AT, 1)
        return any(map(_has_colors, samples[::step][:_LOOKED_AT]))

    def left_out(self, labels: LabelSpace, subset: str = "all") -> dict[str, Sample]:
        """Read the samples that the corrections exclude, by key; nothing is read without any."""
        if self.edits is None or not self.edits.excluded:
            return {}
        # What is held out is some of what may be learned from.
        part = "train" if subset == "val" else subset
        samples, _ = self.scan(labels, part)
        named = self.edits.excluded
        return {s.key: s for s in samples if s.key in named or s.group in named}


def read_corrections(path: Path) -> Edits | CorrectedImages:
    """Read corrections: a YAML file that says them, or a data set of corrected images.

    Raises:
        ValueError: a file or a folder that is neither.
    """
    return CorrectedImages.open(path) if path.is_dir() else Edits.load(path)


def _has_colors(sample: Sample) -> bool:
    try:
        return has_colors(read_pixels(sample, grey=False))
    except ValueError:
        # Whoever learns from it says what is wrong.
        return False
