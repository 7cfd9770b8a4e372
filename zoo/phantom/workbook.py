"""The workbook of people, ``meta_data.xlsx``, with the flaws of the real one."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from openpyxl import Workbook

HEADINGS = ("ID", "나이", "성별", "몸무게(체중)", "키(신장)", None)
"""ID, age, sex, weight in kg, height in cm; the notes have no heading, so that pandas calls
their column ``Unnamed: 5``."""

NOTES = {"ring": "반지", "polish": "네일아트", "cut": "손가락 절단"}
"""What the notes call a ring, nail polish and a cut fingertip."""

_STRAY = "_x0008_"
_STRAY_SHARE = 0.15
_EPOCH = datetime(2022, 8, 22)


@dataclass(frozen=True)
class PersonRow:
    """A row of the workbook."""

    number: int
    age: int
    sex: str
    weight_kg: int
    height_cm: int
    note: str | None

    @property
    def row(self) -> tuple[int | str | None, ...]:
        """Cells in the order of the headings."""
        return (self.number, self.age, self.sex, self.weight_kg, self.height_cm, self.note)


def draw_row(
    rng: np.random.Generator, number: int, kinds: Sequence[str], *, stray: bool
) -> PersonRow:
    """Draw age, sex, weight and height; note what the hands wear.

    Args:
        rng: source of the draws.
        number: the person's ID.
        kinds: what each hand wears, see ``wear.KINDS``.
        stray: put an escaped backspace into the sex in any case, not just now and then.
    """
    male = rng.random() < 0.5
    height = rng.normal(173, 6) if male else rng.normal(160, 5.5)
    weight = rng.normal(24 if male else 22, 2.5) * (height / 100) ** 2
    age = int(np.clip(rng.normal(38, 13), 19, 70))
    flawed = rng.random() < _STRAY_SHARE or stray
    sex = (_STRAY if flawed else "") + ("남" if male else "여")
    notes = [NOTES[kind] for kind in dict.fromkeys(kinds) if kind in NOTES]
    return PersonRow(number, age, sex, round(weight), round(height), ", ".join(notes) or None)


def write_workbook(path: Path, people: Sequence[PersonRow]) -> None:
    """Write people by ID; the same people give the same bytes."""
    book = Workbook()
    sheet = book.worksheets[0]
    sheet.append(HEADINGS)
    for person in sorted(people, key=lambda person: person.number):
        sheet.append(person.row)
    book.properties.created = _EPOCH
    raw = io.BytesIO()
    book.save(raw)
    path.write_bytes(_without_clock(raw.getvalue()))


def _without_clock(workbook: bytes) -> bytes:
    """Replace the times of packing and saving, which openpyxl takes from the clock."""
    fixed = io.BytesIO()
    stamp = _EPOCH.strftime("%Y-%m-%dT%H:%M:%SZ").encode()
    with (
        zipfile.ZipFile(io.BytesIO(workbook)) as source,
        zipfile.ZipFile(fixed, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in sorted(source.namelist()):
            content = source.read(name)
            if name == "docProps/core.xml":
                content = re.sub(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", stamp, content)
            entry = zipfile.ZipInfo(name, _EPOCH.timetuple()[:6])
            entry.compress_type = zipfile.ZIP_DEFLATED
            target.writestr(entry, content)
    return fixed.getvalue()
