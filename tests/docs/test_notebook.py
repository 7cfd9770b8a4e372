"""The notebook in docs runs, gives what is stored in it, and stays small."""

import base64
import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
MOST_BYTES = 500_000
_NUMBER = re.compile(r"\d+\.\d+")


@pytest.fixture(scope="module")
def stored():
    nbformat = pytest.importorskip("nbformat")
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell):
    return "".join(out.text for out in cell.outputs if out.output_type == "stream")


def pictures(cell):
    return [
        cv2.imdecode(np.frombuffer(base64.b64decode(found), np.uint8), cv2.IMREAD_COLOR)
        for out in cell.outputs
        if "text/html" in out.get("data", {})
        for found in re.findall(r"base64,([A-Za-z0-9+/=]+)", out.data["text/html"])
    ]


def test_it_is_small_and_was_run_from_top_to_bottom(stored):
    assert NOTEBOOK.stat().st_size < MOST_BYTES
    cells = code_cells(stored)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [o for cell in cells for o in cell.outputs if o.output_type == "error"]
    assert len([one for cell in cells for one in pictures(cell)]) == 3
    said = "".join(map(printed, cells))
    assert all(name in said for name in ("sharp", "soft", "noisy", "mean", "vote"))
    # What no network has predicted is called so.
    assert any("simulated" in cell.source for cell in stored.cells if cell.cell_type == "markdown")


def test_nothing_in_it_tells_of_a_machine(stored):
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert not re.search(r"/(home|root|work|Users)/", text)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_it_gives_what_is_stored(stored, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    nbformat = pytest.importorskip("nbformat")
    others = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(others))
    fresh = nbformat.read(NOTEBOOK, as_version=4)
    for cell in code_cells(fresh):
        cell.outputs = []
    nbclient.NotebookClient(fresh, timeout=200, kernel_name="python3").execute()
    for old, new in zip(code_cells(stored), code_cells(fresh), strict=True):
        assert _NUMBER.sub("#", printed(new)) == _NUMBER.sub("#", printed(old))
        numbers = ([float(n) for n in _NUMBER.findall(printed(cell))] for cell in (new, old))
        # Other versions of OpenCV round otherwise.
        assert list(next(numbers)) == pytest.approx(list(next(numbers)), abs=0.01)
        for one, other in zip(pictures(new), pictures(old), strict=True):
            assert one.shape == other.shape
            assert np.abs(one.astype(float) - other).mean() < 2
