"""The whole audit of a phantom with faults, and the corrections that it drafts."""

import shutil
from pathlib import Path

import pytest
import yaml

import converters
from converters.audit.drafting import draft_edits
from converters.audit.findings import KINDS, Finding
from converters.audit.search import audit
from converters.edits.edits import Edits
from zoo.phantom.faults import plant_faults

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def faulty(phantom, tmp_path_factory, labels):
    """Sixty hands of which every second one has a fault: 30 faults of 29 sorts."""
    data = tmp_path_factory.mktemp("faulty") / "data"
    shutil.copytree(phantom, data)
    faults = plant_faults(data, 0.5, seed=1)
    samples, problems = converters.scan(data, subset="all", labels=labels)
    return faults, samples, problems, audit(samples, problems, labels)


@pytest.mark.slow
def test_all_kinds_of_faults_are_planted_and_most_are_found(faulty):
    faults, _, _, found = faulty
    told = {(f.kind, f.key) for f in found} | {(f.kind, k) for f in found for k in f.others}
    # A style is one of many images, and names are of all.
    assert {fault.kind for fault in faults} == set(KINDS) - {"style", "alike"}
    missed = [fault for fault in faults if (fault.kind, fault.key) not in told]
    # Odd forms may hide in the variety of sixty small hands; nothing else may.
    assert [fault for fault in missed if fault.kind != "outlier"] == []


def test_findings_are_by_kind_and_the_surest_first(faulty):
    found = faulty[3]
    order = list(KINDS)
    places = [(order.index(f.kind), -f.score) for f in found]
    assert places == sorted(places)


@pytest.mark.slow
def test_the_number_of_processes_changes_nothing(hands, labels):
    steps = []
    one = audit(hands[:14], [], labels)
    two = audit(hands[:14], [], labels, jobs=2, progress=lambda *step: steps.append(step))
    assert one == two
    assert steps == [(n, 14) for n in range(1, 15)]


@pytest.mark.slow
def test_the_draft_is_an_edits_file_that_mends(faulty, labels, tmp_path):
    _, samples, problems, found = faulty
    path = tmp_path / "edits.yaml"
    path.write_text(yaml.safe_dump(draft_edits(found)), encoding="utf-8")
    edits = Edits.load(path)
    mended = edits.apply(samples, subset="all", labels=labels, problems=problems)
    left = [problem for problem in problems if problem.key not in edits.excluded]
    assert left == []
    again = {f.kind for f in audit(mended, left, labels)}
    assert not again & {"unreadable", "swapped", "double", "duplicate", "patient"}


def test_nothing_to_look_at_has_no_findings(labels):
    assert audit([], [], labels) == []


def test_where_labels_may_come_often_hands_are_not_compared(hands, spoil):
    waste = converters.types.LabelSpace("waste", ("finger-1", "Radius"))
    bare = [spoil.redraw(hand, "Ulna") for hand in hands[:13]]
    assert audit(bare, [], waste) == []


# --- drafts

KEY = "train/DCM/ID001/image1"


def finding(score=1.0, kind="double", **edit):
    return Finding(kind, KEY, "why", score, ("Ulna",), edit=edit)


DROP = {"key": KEY, "label": "Ulna", "part": 1, "why": "twice"}
OTHER_PART = {**DROP, "part": 2}
REPLACE = {"key": KEY, "label": "Ulna", "polygons": [[[0, 0], [9, 0], [9, 9]]], "why": "loop"}
CYCLE = [
    {"key": KEY, "label": a, "to": b, "why": "turned"}
    for a, b in (("Ulna", "Radius"), ("Radius", "Hamate"), ("Hamate", "Ulna"))
]
EXCLUDE = {"key": KEY, "why": "broken"}


@pytest.mark.parametrize(
    ("findings", "expected"),
    [
        ([finding(0.89, drop=DROP)], {}),
        ([finding(0.9, drop=DROP)], {"drop": [DROP]}),
        ([finding()], {}),
        ([finding(drop=DROP), finding(drop=OTHER_PART)], {"drop": [DROP, OTHER_PART]}),
        ([finding(drop=DROP), finding(replace=REPLACE)], {"drop": [DROP]}),
        ([finding(replace=REPLACE), finding(relabel=CYCLE[2])], {"replace": [REPLACE]}),
        ([finding(relabel=entry) for entry in CYCLE], {"relabel": CYCLE}),
        ([finding(drop=DROP), finding(exclude_images=EXCLUDE)], {"exclude_images": [EXCLUDE]}),
        ([finding(exclude_images=EXCLUDE)] * 2, {"exclude_images": [EXCLUDE]}),
    ],
    ids=lambda value: None,
)  # fmt: skip
def test_a_draft_has_what_is_certain_and_nothing_twice(findings, expected, tmp_path: Path):
    draft = draft_edits(findings)
    assert draft == {"version": 1, **expected}
    path = tmp_path / "edits.yaml"
    path.write_text(yaml.safe_dump(draft), encoding="utf-8")
    assert len(Edits.load(path).entries) == sum(map(len, expected.values()))
