"""The audit's folder: what a data set with broken files in it comes out as."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import yaml

from converters.audit.findings import Finding
from converters.edits.edits import Edits
from converters.files.provenance import read_provenance
from converters.types import LabelSpace
from zoo.phantom.config import PhantomConfig
from zoo.phantom.tree import write_phantom
from zoo.report.audit import command as audit_module
from zoo.report.audit.command import audit, scan, summary
from zoo.source import DataSource

pytestmark = pytest.mark.slow

LABELS = LabelSpace.load("hand_bones")


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """Two people of which one has a cut image, the other a broken annotation file."""
    data = tmp_path_factory.mktemp("audit") / "data"
    write_phantom(data, PhantomConfig(people=2, test_people=0, size=256, seed=3))
    images = sorted((data / "train" / "DCM").glob("*/*.png"))
    images[0].write_bytes(images[0].read_bytes()[:5000])
    sorted((data / "train" / "outputs_json").glob("*/*.json"))[-1].write_text("{")
    return data


def key_of(problem):
    return {"exclude_images": {"key": problem.key, "why": problem.what}}


def look(samples, problems, labels, *, jobs, progress):
    """Detectors that find every problem, and something in the first image."""
    found = [Finding("unreadable", p.key, p.what, 1.0, edit=key_of(p)) for p in problems]
    progress(len(samples), len(samples))
    return [*found, Finding("swapped", samples[0].key, "look", 0.4, ("finger-1", "finger-3"))]


def draft(findings):
    edits = [f.edit["exclude_images"] for f in findings if f.edit]
    return {"version": 1, "exclude_images": edits}


@pytest.fixture(autouse=True)
def detectors(monkeypatch):
    fake = SimpleNamespace(audit=look, draft_edits=draft)
    monkeypatch.setattr(audit_module, "detectors", fake)
    return fake


def run(data, out, edits=None, **options):
    source = DataSource.open(data, None, edits)
    moved = []
    text = audit(
        *(source, out, "hand_bones"),
        command=["zoo", "audit"],
        report=lambda *step: moved.append(step),
        **options,
    )
    return text, moved


def test_a_data_set_with_broken_files_is_audited(phantom, tmp_path):
    text, _ = run(phantom, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"report.html", "findings.json", "edits.yaml", "provenance.json"}
    found = json.loads((tmp_path / "out" / "findings.json").read_text())
    assert [f["kind"] for f in found] == ["unreadable", "unreadable", "swapped"]
    assert "     2  unreadable" in text
    assert f"{tmp_path / 'out' / 'report.html'}: 3 findings" in text
    page = (tmp_path / "out" / "report.html").read_text()
    # The cut image has none; the one whose annotations are broken has.
    assert page.count('src="data:image/jpeg') == 2
    assert str(tmp_path) not in page


def test_the_draft_mends_the_data_set(phantom, tmp_path):
    assert len(scan(DataSource.open(phantom), LABELS, "all")[1]) == 2
    run(phantom, tmp_path / "out")
    source = DataSource.open(phantom, None, tmp_path / "out" / "edits.yaml")
    samples, problems = scan(source, LABELS, "all")
    assert problems == []
    assert [len(sample.instances) for sample in samples] == [29, 29]


def test_what_a_reader_notes_is_said(tmp_path, capsys):
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    (data / "labels").mkdir()
    for name in "ab":
        cv2.imwrite(str(data / "images" / f"{name}.png"), np.zeros((9, 9), np.uint8))
    (data / "labels" / "a.txt").write_text("")
    (data / "data.yaml").write_text("{names: [Ulna], train: images}")
    scan(DataSource.open(data), LABELS, "all")
    assert "zoo: note: " in (said := capsys.readouterr().err)
    assert "1 images without a label file (images/b.png)" in said


def test_corrections_are_applied_before(phantom, tmp_path):
    run(phantom, tmp_path / "out")
    edits = tmp_path / "out" / "edits.yaml"
    text, _ = run(phantom, tmp_path / "again", edits)
    assert "unreadable" not in text
    assert text.endswith(": 1 finding")
    digest = Edits.load(edits).digest
    assert read_provenance(tmp_path / "again")["edits"] == digest
    assert digest[:12] in (tmp_path / "again" / "report.html").read_text()


def test_description_comes_along_where_wanted(phantom, tmp_path):
    _, moved = run(phantom, tmp_path / "out", describe=True)
    record = json.loads((tmp_path / "out" / "description.json").read_text())
    assert (record["images"], record["annotated"]) == (3, 2)
    assert record["iou"][25][26] > 0.1
    assert "What the data set is like" in (tmp_path / "out" / "report.html").read_text()
    assert list(dict.fromkeys(note for *_, note in moved)) == ["looking", "describing", "drawing"]


def test_a_second_audit_replaces_the_first(phantom, tmp_path):
    run(phantom, tmp_path / "out", describe=True)
    run(phantom, tmp_path / "out")
    assert not (tmp_path / "out" / "description.json").exists()


def test_nothing_is_left_of_an_audit_that_fails(phantom, tmp_path, detectors):
    def fail(*_, **__):
        raise ValueError("no")

    detectors.audit = fail
    with pytest.raises(ValueError, match="no"):
        run(phantom, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_audit(tmp_path):
    data = tmp_path / "data"
    (data / "train" / "DCM").mkdir(parents=True)
    with pytest.raises(ValueError, match="expected images to audit, found none"):
        run(data, tmp_path / "out")


def test_provenance_names_the_command(phantom, tmp_path):
    run(phantom, tmp_path / "out")
    record = read_provenance(tmp_path / "out")
    assert (record["kind"], record["command"]) == ("audit", ["zoo", "audit"])


def test_edits_file_holds_what_was_drafted(phantom, tmp_path):
    run(phantom, tmp_path / "out")
    text = (tmp_path / "out" / "edits.yaml").read_text()
    assert text.startswith("# ")
    assert set(yaml.safe_load(text)) == {"version", "exclude_images"}


def test_summary_of_nothing(tmp_path):
    assert summary([], tmp_path) == [f"{tmp_path / 'report.html'}: nothing looks wrong"]


def test_summary_names_the_surest(tmp_path):
    found = [Finding("tiny", f"image_{n}", f"number {n}", n / 10) for n in range(8)]
    lines = summary(found, tmp_path)
    assert lines[1] == "the surest:"
    assert lines[2] == "  0.70  tiny: image_7: number 7"
    assert len(lines) == 8
