"""A data set's images divided into folds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace as replaced
from pathlib import Path, PurePosixPath

from converters.files.outputs import check_file, json_with
from converters.splits.grouping import (
    group_by,
    group_versions,
    likely_columns,
    original_of,
    with_groups,
)
from converters.splits.split import (
    GIVEN,
    STRATEGIES,
    Split,
    check_leakage,
    given_split,
    make_split,
)
from converters.splits.table import describe as describe_split
from converters.subsets.names import TRAIN, VAL
from converters.tables.sample_tables import tables_beside
from converters.types import SUBSET, LabelSpace, Sample
from zoo.source import DataSource

_FOLD = re.compile(r"(cv[_ -]?)?fold[_ -]?\d+", re.IGNORECASE)
_SIDE = re.compile(r"(?<![a-z])(left|right|[lr])(?![a-z])", re.IGNORECASE)


def split(
    data: DataSource,
    out: Path,
    labels_name: str | None,
    folds: int,
    strategy: str,
    seed: int,
    *,
    describe: bool,
    replace: bool = False,
    by: str = "",
) -> str:
    """Divide a data set's train images into folds; return what was made, in words.

    Whose an image is, `by` may say: see `converters.splits.grouping.group_by`.

    Raises:
        ValueError: too few patients, an unknown strategy, or the same image in two folds, or in a
            fold and among the test images; another file at `out`, or other folds without `replace`.
    """
    check_file(out, "a split", json_with("folds", "groups"))
    if strategy not in (*STRATEGIES, GIVEN):
        known = ", ".join((*STRATEGIES, GIVEN))
        raise ValueError(f"--strategy {strategy}: expected one of {known}")
    asks_objects = strategy == "stratified" or describe
    labels = data.labels(labels_name) if asks_objects or labels_name else None
    samples = data.read(labels) if asks_objects and labels else data.list_images(labels=labels)
    if by:
        samples = group_by(samples, by, tables_beside(data.path))
    ungrouped, samples = samples, group_versions(samples)
    if strategy == GIVEN:
        made = given_split(samples, _held_out(data, samples))
    else:
        made = make_split(samples, folds=folds, seed=seed, strategy=strategy, labels=labels)
    if labels_name:
        made = replaced(made, labels=labels)
    check_apart(data, samples, labels)
    everything = data.list_images("all", labels)
    check_leakage(made, with_groups(everything, made.groups))
    found = _found(out)
    is_same = found is not None and found.digest == made.digest
    if out.exists() and out.stat().st_size and not replace and not is_same:
        raise ValueError(
            f"{out}: expected the same folds, found others: runs that were made with these would "
            "not fit any more; give --replace, or choose another --out"
        )
    if found != made:
        # Of the same folds a word of the user's own stays beside them.
        made.save(out)
    sizes = ", ".join(str(len(keys)) for keys in made.folds)
    groups = len(set(made.groups.values()))
    of = f" of {groups} groups" if any(sample.group for sample in samples) else ""
    lines = [f"{out}: {len(samples)} images{of}; folds {sizes}"]
    if strategy == GIVEN:
        which = "the one fold, 0, holds" if len(made.folds) == 1 else "its own folds hold"
        lines = [f"{out}: {len(samples)} images{of}; {which} out {sizes}"]
    lines += describe_versions(ungrouped, samples)
    lines += describe_leaks(samples, everything)
    lines += describe_unknown(samples, made, tables_beside(data.path))
    if strategy != GIVEN and (own := own_parts(samples)):
        lines.append(
            f"the data set's own parts {', '.join(own)} are dealt anew, all together; "
            f"--strategy {GIVEN} keeps them"
        )
    if describe and labels:
        lines.append(str(describe_split(made, samples, labels)))
    return "\n".join(lines)


def check_apart(data: DataSource, learned: Sequence[Sample], labels: LabelSpace | None) -> None:
    """Make sure that none of the images to learn from is a test image as well.

    Args:
        data: the data set.
        learned: the images to learn from.
        labels: as `DataSource.list_images` takes them.

    Raises:
        ValueError: some are; names them.
    """
    tests = data.list_part("test", labels)
    images = {sample.key: sample.image for sample in learned}
    # What a list calls a test image has a key in `test`, wherever it lies.
    plain = {sample.key.removeprefix("test/"): sample.image for sample in tests}
    both = [sample.key for sample in tests if sample.key in images]
    both += [key for key, image in plain.items() if images.get(key) == image and key not in both]
    if both:
        more = f" and {len(both) - 1} more" if len(both) > 1 else ""
        raise ValueError(
            f"{data.path}: expected images to learn from or test images, found '{both[0]}'{more} "
            "among both: leave them out of one part"
        )


def own_parts(samples: Sequence[Sample]) -> list[str]:
    """Return the parts by which a data set itself tells images to learn from and held-out ones.

    They are its folds, or what is to be learned from, then what is held out. None where there are
    not several, or not both.
    """
    if folds := own_folds(samples):
        return list(folds)
    found = {part for sample in samples for part in _parts_of(sample)}
    both = [[p for p in sorted(found) if _plain(p) in names] for names in (TRAIN, VAL)]
    return [*both[0], *both[1]] if all(both) else []


def _parts_of(sample: Sample) -> list[str]:
    """The folders that an image is in, and the part to which lists or CVAT count it."""
    subset = sample.attributes.get(SUBSET)
    return [*PurePosixPath(sample.key).parts[:-1], *([str(subset)] if subset else ())]


def own_folds(samples: Sequence[Sample]) -> dict[str, set[str]]:
    """Return the keys of a data set's own folds, `fold1`, `fold2`, ...; {} if an image is in none.

    There are as few as two; an image is in the last that it names.
    """
    found: dict[str, set[str]] = {}
    for sample in samples:
        own = [part.lower() for part in _parts_of(sample) if _FOLD.fullmatch(part)]
        if not own:
            return {}
        found.setdefault(own[-1], set()).add(sample.key)
    order = sorted(found, key=lambda name: (int(re.sub(r"\D", "", name)), name))
    return {name: found[name] for name in order} if len(found) > 1 else {}


def _plain(part: str) -> str:
    """A folder's name as it is compared; COCO's have a year behind it."""
    return part.lower().rstrip("0123456789")


def _held_out(data: DataSource, samples: Sequence[Sample]) -> list[set[str]]:
    """Return the keys of the data set's own folds, or of its one held-out part.

    Raises:
        ValueError: it has no such part, or images in neither.
    """
    if folds := own_folds(samples):
        return list(folds.values())
    parts = {s.key: set(map(_plain, _parts_of(s))) for s in samples}
    held_out = {key for key, own in parts.items() if own.intersection(VAL)}
    stray = [key for key, own in parts.items() if not own.intersection((*TRAIN, *VAL))]
    if stray or not own_parts(samples):
        found = f"'{stray[0]}' in neither" if stray else "not both"
        raise ValueError(
            f"--strategy {GIVEN}: {data.path}: expected images in folders or lists train and "
            f"valid or val, found {found}: take another strategy, which deals them"
        )
    return [held_out]


def describe_versions(before: Sequence[Sample], after: Sequence[Sample]) -> list[str]:
    """Say, in a line, which images were taken for versions of one.

    Args:
        before: as they were read.
        after: the same, with groups.
    """
    pairs = zip(before, after, strict=True)
    versions = [new.group for old, new in pairs if old.group != new.group]
    if not versions:
        return []
    return [
        f"{len(versions)} images are versions of {len(set(versions))} by their names, such as "
        f"{versions[0]}: versions of an image stay in one fold; --group-by tells whose an image is"
    ]


def describe_leaks(learned: Sequence[Sample], everything: Sequence[Sample]) -> list[str]:
    """Say, in a line, which test images are versions of images to learn from, by their names.

    Args:
        learned: the images to learn from.
        everything: these and test images.
    """
    keys = {sample.key for sample in learned}
    known = {name: sample.key for sample in learned if (name := original_of(sample.key))}
    pairs = [
        (known[name], sample.key)
        for sample in everything
        if sample.key not in keys and (name := original_of(sample.key)) in known
    ]
    if not pairs:
        return []
    return [
        f"{len(pairs)} test images are versions of images to learn from by their names, such as "
        f"{pairs[0][1]} of {pairs[0][0]}: a score on them tells too much; move the versions of an "
        "image into one part"
    ]


def describe_unknown(
    samples: Sequence[Sample], made: Split, tables: Sequence[Path] = ()
) -> list[str]:
    """Say, in a line, that images are of nobody known, and which may be of the same patient.

    Args:
        samples: what was divided.
        made: its folds.
        tables: files beside the data.
    """
    unknown = [sample.key for sample in samples if not sample.group]
    if not unknown:
        return []
    line = "no patients are known: every image counts as its own"
    if len(unknown) < len(samples):
        line = f"no patient is known of {len(unknown)} images: each counts as its own"
    pairs = pair_sides(unknown)
    if pairs:
        fold = {key: number for number, keys in enumerate(made.folds) for key in keys}
        apart = sum(fold.get(left) != fold.get(right) for left, right in pairs)
        line += (
            f"; {len(pairs)} pairs look like left and right of one patient by their names, such as "
            f"{' and '.join(pairs[0])}: {apart} of them are in two folds"
        )
    return [f"{line}; {how_to_group(tables)}"]


def how_to_group(tables: Sequence[Path]) -> str:
    """Say how patients are told, by a column of the tables that looks like theirs, if one does."""
    likely = likely_columns(tables)
    told = f"{likely[0]} may tell" if likely else "tells"
    return f"--group-by {told} whose an image is"


def pair_sides(keys: Iterable[str]) -> list[tuple[str, str]]:
    """Return the keys that differ only in left and right.

    >>> pair_sides(["a/7_L", "a/7_R", "a/8_L", "right/9", "left/9"])
    [('a/7_L', 'a/7_R'), ('left/9', 'right/9')]
    """
    found: dict[str, dict[str, str]] = {}
    for key in sorted(keys):
        sides = {match.group().lower()[0] for match in _SIDE.finditer(key)}
        if len(sides) == 1:
            found.setdefault(_SIDE.sub("", key), {})[sides.pop()] = key
    return [(both["l"], both["r"]) for both in found.values() if len(both) > 1]


def _found(path: Path) -> Split | None:
    """Return the split that is there, if it is one."""
    try:
        return Split.load(path)
    except ValueError:
        return None
