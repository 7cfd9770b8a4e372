"""Images and masks that a table names: `image,mask` in `dataset.csv`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from converters.files.lines import TABLE_SUFFIXES
from converters.files.names import normal_name
from converters.formats.mask_folders.matching import Pairs
from converters.formats.mask_folders.tree import Tree
from converters.tables.image_columns import ImageNames, order_columns
from converters.tables.sample_tables import read_rows

_MASK = re.compile(r".*(mask|label|annot|seg|truth|target|gt).*", re.IGNORECASE)
# So many of a table's rows name both.
_MOST = 0.5


def pairs_of_table(tree: Tree, root: Path) -> Pairs | None:
    """Pair what one table in a folder names side by side; None where there is none, or several.

    Args:
        tree: where images and masks lie.
        root: the data set's folder.
    """
    tables = sorted(path for path in root.iterdir() if path.suffix.lower() in TABLE_SUFFIXES)
    if not tables:
        return None
    files = {path.relative_to(root).as_posix(): path for path in tree.files_in(root, deep=True)}
    names = ImageNames({place: (place,) for place in files})
    found = [pairs for table in tables if (pairs := _of_table(table, files, names))]
    return found[0] if len(found) == 1 else None


def _of_table(table: Path, files: Mapping[str, Path], names: ImageNames) -> Pairs | None:
    try:
        rows, columns = read_rows(table)
    except ValueError:
        return None
    cells = [[(row.get(name) or "").strip() for name in columns] for row in rows]
    by_column = [names.find_all([row[i] for row in cells]) for i in range(len(columns))]
    meant = [[_only(column[n][0]) for column in by_column] for n in range(len(cells))]
    counts = [sum(place is not None for place in own) for own in zip(*meant, strict=True)]
    full = {i for i, count in enumerate(counts) if count > _MOST * len(rows)}
    masks = [i for i in full if _MASK.fullmatch(columns[i])]
    images = [i for i in order_columns(columns, cells) if i in full and i not in masks]
    if len(masks) != 1 or not images:
        return None
    of_images: dict[str, Path] = {}
    of_masks: dict[str, list[Path]] = {}
    for row in meant:
        image, mask = row[images[0]], row[masks[0]]
        if image is None or mask is None or image == mask:
            continue
        key = normal_name(Path(image).with_suffix("").as_posix())
        of_images[key] = files[image]
        of_masks.setdefault(key, []).append(files[mask])
    is_clear = of_masks and of_images.keys() == of_masks.keys()
    shown = set(of_images.values())
    if not is_clear or any(path in shown for own in of_masks.values() for path in own):
        return None
    unique: dict[str, Sequence[Path]] = {k: tuple(dict.fromkeys(v)) for k, v in of_masks.items()}
    return Pairs(of_images, unique)


def _only(found: Set[str]) -> str | None:
    return next(iter(found)) if len(found) == 1 else None
