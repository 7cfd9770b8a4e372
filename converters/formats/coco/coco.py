"""COCO's instance annotations: one JSON file for all images of a subset.

    OUT/annotations/instances_{train,val}.json
    OUT/images/{train,val}/NAME.png                 copies; hard links where asked for

`file_name` is relative to OUT/images/{train,val}: this folder and the JSON file are what
pycocotools, `torchvision.datasets.CocoDetection` and `supervision.DetectionDataset.from_coco`
want to be told. Ids count from 1, those of images and annotations through all files of the data
set. An image's entry `sample` holds what COCO has no place for: key, group, attributes, frame.

Layout `polygons`: an object without holes is one polygon a part, an object with holes, which
COCO's polygons cannot have, is a run-length code. Layout `rle`: all objects are such codes. Their
`iscrowd` is 0, because they are single objects; pycocotools and supervision read the code in
either case.

COCO's pixels have an extent: the centre of pixel (0, 0) lies at (.5, .5). A polygon is the border
of the object's pixels (`converters.formats.coco.borders`) in whole and half numbers. The
annotator's vertices, moved by half a pixel, would give pycocotools a mean Dice of .963 with our
masks at 512 x 512 pixels, .991 at 2048 x 2048; moved outwards as well, .992 and .999; the border
gives 1, and `area` and `bbox` are those that pycocotools counts. It costs 80 kB of text for a hand
at 2048 x 2048, `rle` 10 kB. supervision rounds polygons to whole pixels and fills one row and
column too much (Dice about .96 at 512 x 512): take `rle` for it.

What is read: JSON files in the folder, in `annotations/` and in other folders directly below it,
with their images beside them or in `images/NAME`, `NAME`, `images` or `data` (NAME: train2017 for
instances_train2017.json or person_keypoints_train2017.json), or in a folder that the user names. A
file belongs to the test subset if its name or its folder's has the word test. Of one that speaks of
no subset, or of both, the images in folders of that name are test images. Where no file speaks of
test images, those in such folders are to be answered. Names of categories are names of classes or
their aliases. Ids only join entries: 1, 1.0 and "1" are the same, those of annotations do not
matter. An image that several files name must have the same objects in all of them, unless a file
has no annotations at all. COCO panoptic is read where no other file has objects
(`converters.formats.coco.panoptic`). What annotates something else is left out if another file has
objects: captions, keypoints, COCO panoptic, and a file none of whose categories is known (RAM-H1200
keeps bones and erosions in two files of a folder).

A JSON file that should be an annotation file, by its name or its place, and cannot be read as one
is a problem; so is a folder of a subset, such as train2017, with images of which no file speaks.
Points that cannot be pixels of their image, or lie elsewhere than `bbox` says, are refused
(`converters.formats.plausible`).

A polygon holds the pixels that pycocotools gives it (`converters.formats.coco.filling`). An object
that has none, because it is thinner than a pixel, keeps the pixels of its outline, where
pycocotools gives it none. Parts of one or two points have no pixels. Every annotation becomes an
instance, also a crowd (`iscrowd: 1`), which is many objects in one: how many there are is said.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import IO, Any

from converters.errors import Problems
from converters.files.images import PutImage, image_suffix
from converters.files.json_files import load_json
from converters.formats.coco.documents import RESULTS, Document, category_names, is_results
from converters.formats.coco.drawn import DrawnShapes
from converters.formats.coco.files import annotation_files as annotation_files
from converters.formats.coco.files import (
    broken_files,
    is_test,
    lists_of_results,
    names_no_part,
)
from converters.formats.coco.files import matches as matches
from converters.formats.coco.images import shown_name
from converters.formats.coco.reading import CocoReader
from converters.formats.coco.shapes import encode_segmentations
from converters.formats.coco.unnamed import (
    has_test_folder,
    is_part,
    report_unnamed,
    test_images,
)
from converters.formats.label_spaces import folder_space
from converters.formats.writing import WriteTarget, check_labels, file_names, sample_record
from converters.loss import ConversionLoss, lossless
from converters.masks import Box, rasterize, tight_box
from converters.subsets.names import is_test_root
from converters.types import LabelSpace, PackedInstances, Sample

_SHOWN = 3
LOSES = {"polygons": frozenset({"subpixels"}), "rle": frozenset({"subpixels"})}


# --- writing


@dataclass
class _Output:
    """The annotation file of one subset, written from front to back."""

    file: IO[bytes]
    is_empty: bool = True

    def begin(self, images: Sequence[Mapping[str, Any]], labels: LabelSpace) -> None:
        categories = [
            {"id": number, "name": name, "supercategory": labels.group_of(name) or labels.name}
            for number, name in enumerate(labels.names, 1)
        ]
        self.file.write(b'{"categories":[\n%b\n],' % _lines(categories))
        self.file.write(b'\n"images":[\n%b\n],\n"annotations":[' % _lines(images))

    def add(self, number: int, image: int, text: bytes) -> None:
        comma = b"" if self.is_empty else b","
        self.file.write(b'%b\n{"id":%d,"image_id":%d,%b}' % (comma, number, image, text))
        self.is_empty = False

    def end(self) -> None:
        self.file.write(b"\n]}\n")


def _lines(records: Iterable[Mapping[str, Any]]) -> bytes:
    texts = (json.dumps(record, ensure_ascii=False, default=str) for record in records)
    return ",\n".join(texts).encode()


def write(samples: Sequence[Sample], target: WriteTarget) -> ConversionLoss:
    """Write samples as a COCO data set; nothing is lost, at the level of pixels.

    An instance without a pixel in the image has no annotation.
    """
    tasks = [
        (sample, _image_record(number, name, sample), target.subset_of(sample))
        for number, (name, sample) in enumerate(zip(file_names(samples), samples, strict=True), 1)
    ]
    (target.folder / "annotations").mkdir()
    encode = partial(_write_sample, target.folder, target.labels, target.layout, target.put_image)
    with ExitStack() as stack:
        outputs: dict[str, _Output] = {}
        for subset in target.subsets:
            (target.folder / "images" / subset).mkdir(parents=True)
            path = target.folder / "annotations" / f"instances_{subset}.json"
            outputs[subset] = _Output(stack.enter_context(path.open("wb")))
            outputs[subset].begin(
                [image for _, image, own in tasks if own == subset], target.labels
            )
        numbers = count(1)
        for (_, image, subset), texts in zip(tasks, target.each(encode, tasks), strict=True):
            for text in texts:
                outputs[subset].add(next(numbers), image["id"], text)
        for output in outputs.values():
            output.end()
    return sum(map(lossless, samples), ConversionLoss())


def _image_record(number: int, name: str, sample: Sample) -> dict[str, Any]:
    height, width = sample.size_hw
    place = {"id": number, "file_name": name + image_suffix(sample)}
    return {**place, "width": width, "height": height, "sample": sample_record(sample)}


def _write_sample(
    folder: Path,
    labels: LabelSpace,
    layout: str,
    put: PutImage,
    task: tuple[Sample, Mapping[str, Any], str],
) -> list[bytes]:
    sample, image, subset = task
    put(sample, folder / "images" / subset / image["file_name"])
    return annotation_texts(sample, labels, layout)


def annotation_texts(sample: Sample, labels: LabelSpace, layout: str = "polygons") -> list[bytes]:
    """Return the JSON members of each instance's annotation, but for its id and its image's.

    Raises:
        ValueError: a label that the label space does not have.
    """
    check_labels(sample, labels)
    if isinstance(sample.instances, PackedInstances):
        outlines = sample.instances.outlines
        if isinstance(outlines, DrawnShapes) and outlines.size_hw == sample.size_hw:
            numbers = [labels.index[label] + 1 for label in sample.labels]
            found = zip(numbers, outlines.write(layout), strict=True)
            return [_annotation(number, *own) for number, own in found]
    drawn = [
        (labels.index[instance.label] + 1, mask)
        for instance in sample.instances
        if (mask := rasterize(instance.geometry, sample.size_hw)).area
    ]
    shapes = encode_segmentations([mask for _, mask in drawn], sample.size_hw, layout)
    return [
        _annotation(category, mask.area, tight_box(mask), shape)
        for (category, mask), shape in zip(drawn, shapes, strict=True)
    ]


def _annotation(category: int, area: int, box: Box, shape: bytes) -> bytes:
    return b'"category_id":%d,"area":%d,"bbox":[%d,%d,%d,%d],"iscrowd":0,"segmentation":%b' % (
        (category, area, *box, shape)
    )


# --- reading


def image_names(file: Path) -> list[str]:
    """Return what a file calls its images; nothing where it cannot be read."""
    try:
        names = [shown_name(entry) for entry in Document.load(file).images]
    except ValueError:
        return []
    return [name for name in names if isinstance(name, str)]


def label_space(root: Path, annotations: Path | None = None) -> LabelSpace | None:
    """Return the categories of all annotation files, or of one, in order; None without any.

    A file that cannot be read has none; `read` says what is wrong with it.

    Raises:
        ValueError: there is nothing but a list of results, which names no classes.
    """
    names: dict[str, None] = {}
    for path in [annotations] if annotations else annotation_files(root):
        with suppress(ValueError):
            names |= dict.fromkeys(category_names(path))
    if names:
        return folder_space(root, names)
    for path in broken_files(root, ()):
        if is_results(_content(path)):
            raise ValueError(f"{path}: {RESULTS}")
    return None


def _content(path: Path) -> object:
    try:
        return load_json(path)
    except ValueError:
        return None


def read(
    root: Path,
    *,
    subset: str,
    labels: LabelSpace,
    problems: Problems,
    images: Path | None = None,
    annotations: Path | None = None,
) -> list[Sample]:
    """Read COCO's instance annotations.

    Args:
        root: folder with annotation files and images, as the module's description has it.
        subset: `train` (all but what is named test), `test` or `all`.
        labels: the classes; categories are found by their names or aliases.
        problems: takes down files, images and annotations that are broken.
        images: a folder in which all images are, or in folders of it that are called as the
            subsets; None looks in the usual places.
        annotations: the one file that is read; one of test images belongs to any subset. None: all.

    Returns:
        Samples. Keys and groups are those that `write` has put down, else the images' paths below
        `root` or `images`, and no group.

    Raises:
        ValueError: no annotation file of this subset, or none that knows one of the classes.
    """
    found = annotation_files(root)
    results = lists_of_results(root, found)
    files = sorted({*found, *broken_files(root, found, results)})
    if results:
        names = ", ".join(path.relative_to(root).as_posix() for path in results)
        problems.note(f"{root}: left out lists of COCO results (predictions): {names:.200}")
    meant = files if annotations is None else [annotations]
    has_parts = has_test_folder(images or root) or any(is_test(root, file) for file in files)
    if subset == "test" and is_test_root(root) and not has_parts:
        subset = "all"  # the folder of a part, which is named alone
    wanted = _of_subset(root, meant, subset, is_named=annotations is not None)
    if subset != "test" or has_test_folder(images or root):
        wanted = sorted({*wanted, *(file for file in meant if names_no_part(root, file))})
    _tell_joined(root, wanted, problems)
    reader = CocoReader(root, labels, problems, images, subset, is_named=annotations is not None)
    samples = reader.samples(wanted)
    has_tests = bool(reader.tests) or any(is_test(root, file) for file in files)
    tests: list[Sample] = []
    if subset != "train" and not (images or annotations or has_tests):
        tests = test_images(root, reader.named, set(files) - set(wanted), problems)
    samples += tests
    is_sure = bool(_of_subset(root, wanted, subset, is_named=annotations is not None))
    if not (samples or problems.found or (is_sure and not reader.tests)):
        names = ", ".join(file.name for file in meant) or "none"
        without = ", without an image of it" if wanted else ""
        raise ValueError(
            f"{root}: expected COCO's JSON files of subset '{subset}', found {names}{without}: "
            "--subset says which images are meant"
        )
    reader.named |= {Path(str(sample.image)) for sample in tests}
    if reader.is_whole and images is None and annotations is None:
        others = sorted(set(files) - set(wanted))
        report_unnamed(
            root,
            subset,
            reader.named,
            others=others,
            spoken_of=reader.spoken_of,
            problems=problems,
        )
    return samples


def _of_subset(root: Path, files: Iterable[Path], subset: str, *, is_named: bool) -> list[Path]:
    """The files of a subset by their names; one of test images that was named is of any."""
    return [
        file
        for file in files
        if subset == "all"
        or is_test(root, file) == (subset == "test")
        or (is_named and is_test(root, file))
    ]


def _tell_joined(root: Path, files: Iterable[Path], problems: Problems) -> None:
    """Say that folders which are no parts of one data set, by their names, are read as one."""
    homes = sorted({file.parent.name for file in files if file.parent != root})
    if len(homes) > 1 and not all(is_part(name) for name in homes):
        listed = ", ".join(homes[:_SHOWN]) + (", ..." if homes[_SHOWN:] else "")
        problems.note(
            f"{root}: read as one data set: {len(homes)} folders with annotation files, {listed}; "
            "to take one alone, name it"
        )
