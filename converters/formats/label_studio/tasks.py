"""The tasks of Label Studio's JSON: their images' names, and which annotation of theirs counts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from converters.files.images import is_image
from converters.files.json_files import load_json

_IMAGE = "image"
_JSON = "Label Studio's JSON, a list of tasks"
# Label Studio puts eight digits before the names of files that are uploaded.
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")


@dataclass(frozen=True)
class Task:
    """One image and what was drawn on it.

    Attributes:
        path: the file that it comes from.
        number: in that file.
        record: the task itself.
        names: what its image may be called, the best first; none where it has no image.
        image_key: the member of `data` that names the image.
    """

    path: Path
    number: int
    record: Mapping[str, Any]
    names: tuple[str, ...]
    image_key: str

    @property
    def annotations(self) -> list[Mapping[str, Any]]:
        """Those that were not cancelled, the latest last.

        Raises:
            ValueError: a list of something else.
        """
        found = self.record.get("annotations", [])
        if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
            raise ValueError(f"expected 'annotations' to be a list of objects, found {found!r:.40}")
        return sorted((one for one in found if not one.get("was_cancelled")), key=_time)

    @property
    def entries(self) -> Sequence[Any] | None:
        """The `result` of the latest annotation; None where there is none.

        Raises:
            ValueError: it is no list.
        """
        if not (annotations := self.annotations):
            return None
        result = annotations[-1].get("result")
        if not isinstance(result, list):
            raise ValueError(f"expected 'result' to be a list, found {result!r:.40}")
        return result

    @property
    def attributes(self) -> dict[str, Any]:
        """What else is known of the image: the texts and numbers in `data`."""
        data = self.record["data"]
        return {
            name: value
            for name, value in data.items()
            if name != self.image_key and isinstance(value, str | int | float)
        }


def _time(annotation: Mapping[str, Any]) -> str:
    return str(annotation.get("updated_at") or annotation.get("created_at") or "")


def load_tasks(path: Path) -> list[Task]:
    """Read a file that Label Studio has exported as "JSON".

    Raises:
        ValueError: another file, such as its "JSON-MIN".
    """
    try:
        records = load_json(path)
    except ValueError as error:
        raise ValueError(f"{path}: expected {_JSON}: {error}") from None
    if not isinstance(records, list) or not all(isinstance(one, Mapping) for one in records):
        raise ValueError(f"{path}: expected {_JSON}, found {records!r:.40}")
    if any("annotations" not in one and _is_minimal(one) for one in records):
        raise ValueError(
            f"{path}: expected {_JSON}, found its JSON-MIN, which does not say what is drawn how: "
            'export the project as "JSON"'
        )
    for number, one in enumerate(records):
        if not isinstance(one.get("data"), Mapping):
            raise ValueError(f"{path}: task {number}: expected 'data', found {one!r:.40}")
    return [Task(path, n, one, *_image(one["data"])) for n, one in enumerate(records)]


def _is_minimal(record: Mapping[str, Any]) -> bool:
    """Tell whether JSON-MIN has this for a task: regions beside the image, without their types."""
    lists = (value for value in record.values() if isinstance(value, list))
    regions = (one for listed in lists for one in listed if isinstance(one, Mapping))
    return "annotation_id" in record or any(n.endswith("labels") for one in regions for n in one)


def _image(data: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """Names of the image in `data`, by the key `image` or the only other one that has any."""
    named = {key: image_names(text) for key, text in data.items() if isinstance(text, str)}
    if _IMAGE in named:
        return named[_IMAGE], _IMAGE
    images = {k: names for k, names in named.items() if any(is_image(Path(n)) for n in names)}
    if len(images) != 1:
        return (), ""
    ((key, names),) = images.items()
    return names, key


def image_names(text: str) -> tuple[str, ...]:
    """Return what a file may be called that Label Studio knows by a path or an address.

    >>> image_names("/data/local-files/?d=hands/a%20b.png")
    ('hands/a%20b.png', 'hands/a b.png')
    >>> image_names("/data/upload/3/0a1b2c3d-a.png")
    ('data/upload/3/0a1b2c3d-a.png', 'a.png')
    >>> image_names("https://example.org/x/a.png?size=2")
    ('x/a.png',)
    """
    try:
        address = urlsplit(text)
    except ValueError:
        return (text,)
    if local := parse_qs(address.query).get("d"):
        # Label Studio does not always quote what stands there.
        places = [text.partition("d=")[2], local[0]]
    elif address.scheme:
        places = [unquote(address.path)]
    else:
        places = [text, unquote(text)]
    names = [place.replace("\\", "/").strip("/") for place in places]
    for name in list(names):
        own = PurePosixPath(name).name
        if "upload/" in name and _UPLOADED.match(own):
            names.append(_UPLOADED.sub("", own, count=1))
    return tuple(dict.fromkeys(filter(None, names)))
