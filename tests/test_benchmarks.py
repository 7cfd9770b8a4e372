"""The benchmarks' rows hold what a watched command returns."""

import sys
from dataclasses import fields
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TOOLS = Path(__file__).parents[1] / "tools"


@pytest.mark.parametrize(("name", "row"), [("fuse", "Command"), ("fit", "Row")])
def test_a_row_has_what_is_measured_of_a_command(name, row, monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    benchmark = pytest.importorskip(f"benchmarks.{name}")
    found = benchmark.watch([sys.executable, "-c", ""])
    assert found.keys() <= {field.name for field in fields(getattr(benchmark, row))}
    assert found["seconds"] > 0
    assert found["peak_mb"] > 1
