"""How files of COCO's annotations become samples; `coco.py` says which are read."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from converters.errors import Problems, boxes_only
from converters.files.images import read_size_hw, turn_remedy
from converters.formats.coco.documents import (
    Document,
    Id,
    Record,
    entry_id,
    normal_id,
    objects_of,
)
from converters.formats.coco.drawn import DrawnShapes, draw, draw_written
from converters.formats.coco.files import names_no_part
from converters.formats.coco.images import ImageFinder, shown_name
from converters.formats.coco.names import labels_of
from converters.formats.coco.panoptic import mask_folder, mask_path, read_segments
from converters.formats.coco.shapes import (
    Shape,
    decode_segmentations,
    written_values,
)
from converters.formats.plausible import (
    Bounds,
    are_normalised,
    check_area,
    check_box,
    is_near,
    normalised_message,
    shows_pixels,
)
from converters.formats.writing import record_fields
from converters.masks import Box, outlines, tight_box
from converters.subsets.keys import as_test_key, is_test_key, of_test
from converters.subsets.names import part_name, part_of
from converters.types import SUBSET, Instance, LabelSpace, PackedInstances, Sample, with_drawn

# Programs that resize round a side up or down; of fewer pixels another pixel is another image.
_LEAST_ROUNDED = 64


@dataclass
class _Image:
    """An entry of images whose file is there; its annotations are read when it is its turn."""

    number: Id
    path: Path
    fields: dict[str, Any]
    size_hw: tuple[int, int]
    places: array[int] = field(default_factory=lambda: array("L"))
    annotations: Sequence[tuple[str, Record]] = ()

    def read(self, document: Document) -> _Image:
        """Return it with its annotations, each with the words for it in a message."""
        found = document.annotations.read(self.places)
        own = [
            (_where(entry, place), entry) for place, entry in zip(self.places, found, strict=True)
        ]
        return replace(self, annotations=own)


@dataclass
class CocoReader:
    """Reads annotation files; goes on after a problem.

    Attributes:
        root: the data set's folder.
        labels: the classes.
        problems: takes down what is wrong.
        elsewhere: a folder with the images, where they do not lie with the files.
        subset: `train`, `test` or `all`; which images are read of files that name no part.
        named: the images of all files that were read.
        tests: those of them that lie in folders of test images, of files that name no part.
        spoken_of: folders in which images should be that are not there.
        is_whole: whether all files could be read.
        is_named: whether one file alone is meant, of whatever part it is.
    """

    root: Path
    labels: LabelSpace
    problems: Problems
    elsewhere: Path | None = None
    subset: str = "all"
    named: set[Path] = field(default_factory=set)
    tests: set[Path] = field(default_factory=set)
    spoken_of: set[Path] = field(default_factory=set)
    is_whole: bool = True
    is_named: bool = False
    _specks: Counter[Path] = field(default_factory=Counter)
    _crowds: Counter[Path] = field(default_factory=Counter)
    _rounded: Counter[Path] = field(default_factory=Counter)
    _found: dict[str, tuple[Path, Sample]] = field(default_factory=dict)
    _parts: dict[Path, str] = field(default_factory=dict)

    def samples(self, files: Iterable[Path]) -> list[Sample]:
        """Return the samples of all files, an image once; files about other classes add theirs."""
        images = self._all_images(files)
        # Files without annotations last: they only name images.
        for document, own in sorted(images, key=lambda item: not item[0].annotations):
            self._read(document, own)
        for path, times in (+self._specks).items():
            place = path.relative_to(self.root).as_posix()
            self.problems.note(
                f"{self.root}: {place}: left out {times} parts of objects that have one point or "
                "two, and so no pixels"
            )
        for path, times in (+self._rounded).items():
            place = path.relative_to(self.root).as_posix()
            self.problems.note(
                f"{self.root}: {place}: {times} images have a side that is a pixel longer or "
                "shorter than it says; outlines are taken as they are"
            )
        for path, times in (+self._crowds).items():
            place = path.relative_to(self.root).as_posix()
            self.problems.note(
                f"{self.root}: {place}: {times} crowd regions (iscrowd: 1) are read as an object "
                "each, and no format that is written tells them from others"
            )
        return [sample for _, sample in self._found.values()]

    def keys(self, files: Iterable[Path]) -> list[tuple[Document, dict[Id, str]]]:
        """Return what each file's ids of images stand for: the keys of the samples."""
        return [
            (document, {number: image.fields["key"] for number, image in own.items()})
            for document, own in self._all_images(files)
        ]

    def _all_images(self, files: Iterable[Path]) -> list[tuple[Document, dict[Id, _Image]]]:
        images = [(document, self._images(document)) for document in self._documents(files)]
        self._name(images)
        return [(document, self._wanted(document, own)) for document, own in images]

    def _wanted(self, document: Document, images: dict[Id, _Image]) -> dict[Id, _Image]:
        """The images of the subset; those of a file that names a part are all of it."""
        if not names_no_part(self.root, document.path):
            return images
        tests = {n for n, image in images.items() if is_test_key(image.fields["key"])}
        self.tests |= {images[number].path for number in tests}
        is_wanted = {"train": False, "test": True}.get(self.subset)
        return {n: i for n, i in images.items() if is_wanted in (None, n in tests)}

    def _documents(self, files: Iterable[Path]) -> list[Document]:
        documents: list[Document] = []
        for path in files:
            try:
                documents.append(Document.load(path))
            except ValueError as error:
                self.problems.add(path, error)
                self.is_whole = False
        return self._with_objects(documents)

    def _with_objects(self, documents: Sequence[Document]) -> list[Document]:
        outlined = [d for d in documents if not (d.other_task or d.is_panoptic)]
        is_outlined = any(document.annotations for document in outlined)
        if self._report_boxes(outlined):
            return [document for document in documents if not document.annotations]
        tasks = {
            document.path: "COCO panoptic" if document.is_panoptic else document.other_task
            for document in documents
            if document.other_task or (document.is_panoptic and is_outlined)
        }
        with_objects = [document for document in documents if document.path not in tasks]
        has_objects = any(document.annotations for document in with_objects)
        for document in documents:
            task = tasks.get(document.path)
            if task and has_objects:
                place = document.path.relative_to(self.root).as_posix()
                self.problems.note(f"{self.root}: {place}: left out, this is {task}")
            elif task:
                self.is_whole = False
                self.problems.add(
                    document.path,
                    f"this is {task}, which is not read: expected objects with polygons or "
                    "run-length codes, as in instances_*.json",
                )
        return with_objects

    def _report_boxes(self, documents: Sequence[Document]) -> bool:
        """Take down, a line each, the files of a data set that has nothing but boxes."""
        annotated = [document for document in documents if document.annotations]
        is_of_boxes = bool(annotated) and all(document.is_of_boxes for document in annotated)
        for document in annotated if is_of_boxes else ():
            count = len(document.annotations)
            self.problems.add(document.path, boxes_only(count))
            self.is_whole = False
        return is_of_boxes

    def _images(self, document: Document) -> dict[Id, _Image]:
        """Find a file's images, by their ids."""
        masks = mask_folder(self.root, document.path) if document.is_panoptic else None
        finder = ImageFinder(self.root, document.path, self.elsewhere, masks)
        images: dict[Id, _Image] = {}
        owners: dict[Path, Id] = {}
        names: dict[Id, object] = {}
        for entry in document.images:
            fields = finder.guess(entry)
            try:
                number = entry_id(entry, "image")
                if number in names:
                    raise ValueError(
                        f"image {entry['id']!r}: expected an id of its own, found that of "
                        f"{names[number]!r:.80} too"
                    )
                names[number] = shown_name(entry)
                path = finder.find(entry)
                self.named.add(path)
                if (owner := owners.setdefault(path, number)) != number:
                    raise ValueError(
                        f"images {owner!r} and {number!r}: expected a file each, found the same "
                        "one: keep one of them"
                    )
                size_hw, is_rounded = _checked_size(entry, path)
                self._rounded[document.path] += is_rounded
                if "sample" in entry:
                    fields = record_fields(entry["sample"])
                else:
                    fields.pop("key")
                images[number] = _Image(number, path, fields, size_hw)
            except ValueError as error:
                place = f"{shown_name(entry)!r:.80}: {error}"
                self._report(document, place, fields)
                self.spoken_of.update(finder.folders)
        return self._with_annotations(document, images, names)

    def _report(self, document: Document, what: str, fields: Mapping[str, Any]) -> None:
        """Take down what is wrong with an entry, unless its image is of the other subset."""
        is_test = is_test_key(as_test_key(fields.get("key", "")))
        is_other = self.subset != "all" and is_test != (self.subset == "test")
        if not (is_other and names_no_part(self.root, document.path)):
            self.problems.add(document.path, what, **_owner(fields))

    def _with_annotations(
        self, document: Document, images: dict[Id, _Image], known: Mapping[Id, object]
    ) -> dict[Id, _Image]:
        every = document.annotations
        categories = document.categories.keys()
        for place, (number, own) in enumerate(zip(every.images, every.categories, strict=True)):
            if number in known and own <= categories:
                if number in images:
                    images[number].places.append(place)
                continue
            try:
                (annotation,) = every.read([place])
                error = _stray(annotation, place, known, categories)
            except ValueError as unread:
                error = unread
            self.problems.add(document.path, error)
        return images

    def _name(self, images: Iterable[tuple[Document, Mapping[Id, _Image]]]) -> None:
        """Give keys to images that have none; two that differ only in their suffix keep it."""
        home = self.elsewhere or self.root
        found = [(document.path, image) for document, own in images for image in own.values()]
        times = Counter({image.path: _stem(home, image.path) for _, image in found}.values())
        for file, image in found:
            stem = _stem(home, image.path)
            key = image.path.relative_to(home).as_posix() if times[stem] > 1 else stem
            part = part_of(file.relative_to(self.root).as_posix())
            if part != "train":
                # Formats and folds go by keys, also where all images lie in one folder.
                is_test = part == "test" and not self.is_named
                key = of_test(key) if is_test else as_test_key(key)
            known = image.fields.setdefault("key", key)
            own = part_name(file.stem)
            if own and known == key and not part_name(key.rpartition("/")[0]):
                # Of the parts to learn from; folders say it where there are any.
                image.fields.setdefault("attributes", {SUBSET: own})
            self._check_part(file, image)

    def _check_part(self, file: Path, image: _Image) -> None:
        """Take down an image that is named as one to learn from, and as a test image, too."""
        key = image.fields["key"]
        other = self._parts.setdefault(image.path, key)
        if is_test_key(other) != is_test_key(key):
            what = f"'{image.path.name:.80}': expected it in one part, found it in another one too"
            self.problems.add(file, f"{what}: leave it out of one", **_owner(image.fields))

    def _read(self, document: Document, images: Mapping[Id, _Image]) -> None:
        labels = labels_of(document, self.labels, self.problems)
        normalised, unreadable = set[Id](), set[Id]()
        for number, image in images.items():
            try:
                if _is_normalised(document, image):
                    normalised.add(number)
            except ValueError as error:
                self.problems.add(document.path, error, **_owner(image.fields))
                unreadable.add(number)
        annotated = {number for number, image in images.items() if image.places}
        if normalised and normalised == annotated:
            size_hw = images[min(normalised, key=str)].size_hw
            self.problems.add(document.path, normalised_message(size_hw))
            return
        for number, unread in images.items():
            if number in unreadable:
                continue
            try:
                if number in normalised:
                    raise ValueError(normalised_message(unread.size_hw))
                instances, crowds = self._objects(document, unread, labels)
                sample = Sample(
                    image=unread.path, size_hw=unread.size_hw, instances=instances, **unread.fields
                )
                self._add(document, sample)
                self._crowds[document.path] += crowds
            except ValueError as error:
                place = f"{unread.path.name!r:.80}: {error}"
                self.problems.add(document.path, place, **_owner(unread.fields))

    def _objects(
        self, document: Document, unread: _Image, labels: Mapping[Id, str]
    ) -> tuple[Sequence[Instance], int]:
        """The wanted objects of an image, and how many of them are many in one."""
        if not document.is_panoptic and (found := _drawn_objects(document, unread, labels)):
            return found
        image = unread.read(document)
        return self._instances(document, image, labels), _count_crowds(image, labels)

    def _instances(
        self, document: Document, image: _Image, labels: Mapping[Id, str]
    ) -> Sequence[Instance]:
        if not document.is_panoptic and (drawn := _drawn(image, labels)):
            return drawn
        objects = (
            self._segments(document, image) if document.is_panoptic else _outlined(image, labels)
        )
        kept: list[tuple[str, Shape]] = []
        for where, annotation, shape in objects:
            label = labels.get(entry_id(annotation, where, "category_id"))
            if label is None:
                continue
            try:
                found = _checked(shape, annotation, image.size_hw)
                kept.append((label, found))
                self._specks[document.path] += found.specks
            except ValueError as error:
                what = f"{where} ('{label}'): {error}"
                self.problems.add(document.path, what, **_owner(image.fields))
        outlined = outlines([shape.mask for _, shape in kept])
        return tuple(
            Instance(label, geometry, shape.drawn)
            for (label, shape), geometry in zip(kept, outlined, strict=True)
        )

    def _segments(
        self, document: Document, image: _Image
    ) -> list[tuple[str, Record, Shape | ValueError]]:
        """The objects of an image whose segments are in a PNG."""
        if len(image.annotations) > 1:
            raise ValueError(f"expected one annotation, found {len(image.annotations)}")
        found: list[tuple[str, Record, Shape | ValueError]] = []
        for where, annotation in image.annotations:
            path = mask_path(annotation, mask_folder(self.root, document.path))
            self.named.add(path)
            segments = objects_of(annotation)
            shapes = read_segments(path, segments, image.size_hw)
            for segment, shape in zip(segments, shapes, strict=True):
                found.append((f"{where}, segment {segment['id']!r:.20}", segment, shape))
        return found

    def _add(self, document: Document, sample: Sample) -> None:
        where, other = self._found.setdefault(sample.key, (document.path, sample))
        if other is not sample and other.image == sample.image and _are_about_others(other, sample):
            objects = (*with_drawn(other.instances), *with_drawn(sample.instances))
            both = replace(other, instances=objects)
            self._found[sample.key] = where, both
            return
        is_same = (other.image, other.instances) == (sample.image, sample.instances)
        is_silent = not document.annotations and other.image == sample.image
        if other is sample or is_same or is_silent:
            return
        name = where.relative_to(self.root).as_posix()
        self.problems.add(
            document.path,
            f"'{sample.key}': expected what {name} says of it, found another image or objects: "
            "keep one of them",
            key=sample.key,
            group=sample.group,
        )


def _where(annotation: Record, place: int) -> str:
    return f"annotation {annotation.get('id', f'at place {place}')!r:.40}"


def _stray(
    annotation: Record, place: int, images: Container[Id], categories: Container[Id]
) -> ValueError:
    """What is wrong with an annotation of no image, or of no category."""
    where = _where(annotation, place)
    try:
        if entry_id(annotation, where, "image_id") not in images:
            found = annotation["image_id"]
            return ValueError(f"{where}: expected an image of this file, found {found!r:.40}")
        for entry in objects_of(annotation):
            if entry_id(entry, where, "category_id") not in categories:
                found = entry["category_id"]
                return ValueError(f"{where}: expected a category of this file, found {found!r:.40}")
    except ValueError as error:
        return error
    raise AssertionError(where)


def _are_about_others(one: Sample, other: Sample) -> bool:
    labels = [set(sample.labels) for sample in (one, other)]
    return all(labels) and labels[0].isdisjoint(labels[1])


def _owner(fields: Mapping[str, Any]) -> dict[str, str]:
    return {"key": fields.get("key", ""), "group": fields.get("group", "")}


def _stem(root: Path, image: Path) -> str:
    return image.relative_to(root).with_suffix("").as_posix()


def _checked_size(entry: Record, image: Path) -> tuple[tuple[int, int], bool]:
    """An image's size, and whether a side differs from what is said by what rounding makes."""
    size_hw = read_size_hw(image)
    said = tuple(
        own if entry.get(name) is None else _side(entry[name])
        for name, own in zip(("height", "width"), size_hw, strict=True)
    )
    sides = [(a, b) for a, b in zip(said, size_hw, strict=True) if a != b]
    if sides and all(abs(a - b) == 1 and b >= _LEAST_ROUNDED for a, b in sides):
        return size_hw, True
    if said != size_hw:
        remedy = turn_remedy(image, said, size_hw)
        found = f"found {size_hw}{remedy}"
        raise ValueError(f"expected height and width {said!r:.80} as is said here, {found}")
    return size_hw, False


def _drawn_objects(
    document: Document, image: _Image, labels: Mapping[Id, str]
) -> tuple[PackedInstances, int] | None:
    """The wanted objects of an image as `_drawn` finds them, without reading all of them.

    Beside them how many are crowds.
    """
    wanted = [
        (entry, labels[number])
        for entry in document.annotations.read_drawn(image.places) or ()
        if (number := normal_id(entry.category_id)) is not None and number in labels
    ]
    drawn = draw_written([memoryview(entry.segmentation) for entry, _ in wanted], image.size_hw)
    written = [(entry.bbox, entry.area) for entry, _ in wanted]
    if drawn is None or not _are_in_place(*drawn, written):
        return None
    crowds = sum(_is_crowd(entry.iscrowd) for entry, _ in wanted)
    return PackedInstances.of([label for _, label in wanted], drawn[0]), crowds


def _drawn(image: _Image, labels: Mapping[Id, str]) -> PackedInstances | None:
    """The wanted objects of an image, if they all are polygons without any fault."""
    wanted = _wanted(image, labels)
    drawn = draw([a.get("segmentation") for _, a, _ in wanted], image.size_hw)
    written = [(a.get("bbox"), a.get("area")) for _, a, _ in wanted]
    if drawn is None or not _are_in_place(*drawn, written):
        return None
    return PackedInstances.of([label for *_, label in wanted], drawn[0])


def _are_in_place(
    shapes: DrawnShapes, bounds: Sequence[Bounds], written: Sequence[tuple[object, object]]
) -> bool:
    """Tell whether objects are where the box and the area that are written beside each say."""
    if all(is_near(box, place) for (box, _), place in zip(written, bounds, strict=True)):
        return True  # as nearly all are; their pixels need not be asked
    try:
        found = zip(written, bounds, shapes.measure(), strict=True)
        for (said_box, said_area), place, (area, box) in found:
            _check_place(said_box, said_area, (place, _bounds(box)), area, shapes.size_hw)
    except ValueError:
        return False
    return True


def _wanted(image: _Image, labels: Mapping[Id, str]) -> list[tuple[str, Record, str]]:
    """The annotations of an image that have a class that is asked for."""
    found = (
        (where, annotation, labels.get(entry_id(annotation, where, "category_id")))
        for where, annotation in image.annotations
    )
    return [(where, own, label) for where, own, label in found if label is not None]


def _count_crowds(image: _Image, labels: Mapping[Id, str]) -> int:
    """Number of the regions of an image that are many objects in one, of a wanted class."""
    found = (entry for _, annotation in image.annotations for entry in objects_of(annotation))
    crowds = [entry for entry in found if _is_crowd(entry.get("iscrowd"))]
    return sum(normal_id(entry.get("category_id")) in labels for entry in crowds)


def _is_crowd(written: object) -> bool:
    return written in (1, "1")


def _outlined(
    image: _Image, labels: Mapping[Id, str]
) -> list[tuple[str, Record, Shape | ValueError]]:
    """The wanted objects of an image that have polygons or codes."""
    wanted = [(where, annotation) for where, annotation, _ in _wanted(image, labels)]
    shapes = decode_segmentations([a.get("segmentation") for _, a in wanted], image.size_hw)
    return [(*own, shape) for own, shape in zip(wanted, shapes, strict=True)]


def _side(value: Any) -> Any:
    """A number that is written as a text, as tables have it."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _is_normalised(document: Document, image: _Image) -> bool:
    # Of nearly all images the first object tells that they are not: then the others stay unread.
    parts = (document.annotations.read(places) for places in (image.places[:1], image.places[1:]))
    values = (v for part in parts for a in part for v in written_values(a.get("segmentation")))
    if not are_normalised(values, image.size_hw):
        return False
    every = document.annotations.read(image.places)
    return not any(_shows_pixels(annotation, image.size_hw) for annotation in every)


def _shows_pixels(annotation: Record, size_hw: tuple[int, int]) -> bool:
    numbers = [n for own in written_values(annotation.get("segmentation")) for n in own]
    if not numbers:
        return False
    x, y = numbers[0::2], numbers[1::2]
    bounds = (min(x), min(y), max(x), max(y))
    return shows_pixels(bounds, annotation.get("bbox"), annotation.get("area"), size_hw)


def _checked(shape: Shape | ValueError, annotation: Record, size_hw: tuple[int, int]) -> Shape:
    """The pixels of an annotation that lie where its box says, or have about its area."""
    if isinstance(shape, ValueError):
        raise shape
    # Of thin spikes the mask has no pixels; a box may be around these, or around the points.
    bounds = (*shape.bounds, *((_bounds(tight_box(shape.mask)),) if shape.mask.area else ()))
    said_box, said_area = annotation.get("bbox"), annotation.get("area")
    _check_place(said_box, said_area, bounds, shape.mask.area, size_hw)
    return shape


def _bounds(box: Box) -> Bounds:
    x, y, width, height = box
    return x, y, x + width, y + height


def _check_place(
    said_box: object,
    said_area: object,
    found: Sequence[Bounds],
    area: int,
    size_hw: tuple[int, int],
) -> None:
    if not check_box(said_box, found, size_hw):
        check_area(said_area, area, found[0])
