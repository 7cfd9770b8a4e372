"""The tree that a phantom leaves, and its traps."""

import hashlib
import json
import re
from dataclasses import replace

import cv2
import openpyxl
import pytest

from converters.types import LabelSpace
from zoo.phantom.anatomy import BENT
from zoo.phantom.config import PhantomConfig
from zoo.phantom.tree import TEST, TRAIN, plan_subjects, write_phantom

pytestmark = pytest.mark.slow

CONFIG = PhantomConfig(people=3, test_people=2, size=256, seed=4, artefacts=0.5)


def digests(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantom") / "DATA"
    write_phantom(out, CONFIG)
    return out


def documents(tree):
    return [
        (path, json.loads(path.read_text(encoding="utf-8")))
        for path in sorted(tree.glob("*/outputs_json/*/*.json"))
    ]


def test_same_seed_same_bytes_with_any_number_of_jobs(tree, tmp_path):
    write_phantom(tmp_path / "again", CONFIG, jobs=2)
    assert digests(tmp_path / "again") == digests(tree)


def test_people_do_not_change_each_other(tree, tmp_path):
    write_phantom(tmp_path / "fewer", replace(CONFIG, people=1, test_people=1))
    fewer, whole = digests(tmp_path / "fewer"), digests(tree)
    hands = [name for name in fewer if "/" in name]
    assert len(hands) == 8
    assert all(fewer[name] == whole[name] for name in hands)


def test_another_seed_gives_another_set(tree, tmp_path):
    write_phantom(tmp_path / "other", replace(CONFIG, people=1, test_people=0, seed=5))
    assert not set(digests(tmp_path / "other").values()) & set(digests(tree).values())


def test_images_and_annotations_are_in_their_places(tree):
    for subset, truth, people in (("train", "train", 3), ("test", "truth", 2)):
        images = {
            path.relative_to(tree / subset / "DCM").with_suffix("").as_posix()
            for path in (tree / subset / "DCM").rglob("*.png")
        }
        drawn = {
            path.relative_to(tree / truth / "outputs_json").with_suffix("").as_posix()
            for path in (tree / truth / "outputs_json").rglob("*.json")
        }
        assert images == drawn
        assert len(images) == 2 * people
        assert all(re.fullmatch(r"ID\d{3}/image\d{13}(_[RL])?", key) for key in images)
    assert {path.name for path in tree.iterdir()} == {
        "train",
        "test",
        "truth",
        "meta_data.xlsx",
        "provenance.json",
    }
    assert not (tree / "test" / "outputs_json").exists()


def test_stems_are_unique_and_tell_the_side_now_and_then(tree):
    stems = [path.stem for path in tree.rglob("*.png")]
    assert len({stem[:18] for stem in stems}) == len(stems)
    assert 0 < sum("_" in stem for stem in stems) < len(stems)


def test_images_are_grey(tree):
    for path in tree.rglob("*.png"):
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert image.shape == (256, 256)
        assert image.dtype == "uint8"


def test_documents_have_the_real_fields_and_flaws(tree):
    names = LabelSpace.load("hand_bones").names
    for path, document in documents(tree):
        assert document.keys() == {
            "annotations",
            "attributes",
            "file_id",
            "filename",
            "parent_path",
            "last_modifier_id",
            "metadata",
            "last_workers",
        }
        assert document["filename"] == f"{path.stem}.jpg"
        assert document["metadata"] == {"height": 3060, "width": 3060}
        labels = [annotation["label"] for annotation in document["annotations"]]
        assert set(labels) == set(names)
        assert labels != sorted(labels, key=names.index)
        for annotation in document["annotations"]:
            assert annotation.keys() == {"id", "type", "attributes", "points", "label"}
            assert annotation["type"] == "poly_seg"
            for x, y in annotation["points"]:
                assert isinstance(x, int)
                assert isinstance(y, int)
                assert 0 <= x < 256
                assert 0 <= y < 256


def test_workbook_has_the_real_flaws(tree):
    rows = list(openpyxl.load_workbook(tree / "meta_data.xlsx").active.values)
    assert rows[0] == ("ID", "나이", "성별", "몸무게(체중)", "키(신장)", None)
    folders = {path.name for path in tree.glob("*/DCM/*")}
    assert {f"ID{row[0]:03d}" for row in rows[1:]} == folders
    assert all(isinstance(row[0], int) for row in rows[1:])
    assert any("_x0008_" in row[2] for row in rows[1:])


def test_provenance_names_the_config(tree):
    record = json.loads((tree / "provenance.json").read_text(encoding="utf-8"))
    assert record["command"] == "phantom"
    assert record["seed"] == 4
    assert PhantomConfig(**record["config"]) == CONFIG
    assert "numpy" in record["versions"]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.58, 1.0])
def test_bent_wrists_come_in_their_share(share):
    config = PhantomConfig(people=200, test_people=50, bent_train=share, bent_test=1 - share)
    subjects = plan_subjects(config)
    for subset, people, wanted in ((TRAIN, 200, share), (TEST, 50, 1 - share)):
        bent = [s.posture == BENT for s in subjects if s.subset == subset]
        assert len(bent) == people
        assert sum(bent) == pytest.approx(people * wanted, abs=1)


def test_ids_have_gaps_and_belong_to_one_person():
    numbers = [s.number for s in plan_subjects(PhantomConfig(people=400, test_people=144))]
    assert len(set(numbers)) == len(numbers) == 544
    assert max(numbers) > len(numbers)


def test_progress_counts_images(tmp_path):
    seen = []
    config = replace(CONFIG, people=1, test_people=1)
    write_phantom(tmp_path, config, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 4), (4, 4)]


def test_a_phantom_is_replaced_and_nothing_is_left_beside(tmp_path):
    config = replace(CONFIG, people=1, test_people=0)
    write_phantom(tmp_path / "DATA", config)
    (tmp_path / "DATA" / "stale.txt").write_text("")
    write_phantom(tmp_path / "DATA", config)
    assert not (tmp_path / "DATA" / "stale.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["DATA"]


@pytest.mark.parametrize("record", [None, "{", "[]", '{"command": "train"}'])
def test_another_folder_is_left_alone(tmp_path, record):
    (tmp_path / "mine.txt").write_text("kept")
    if record is not None:
        (tmp_path / "provenance.json").write_text(record)
    before = digests(tmp_path)
    with pytest.raises(ValueError, match="expected a new folder or a phantom"):
        write_phantom(tmp_path, CONFIG)
    assert digests(tmp_path) == before


def test_a_file_is_left_alone(tmp_path):
    (tmp_path / "DATA").write_text("kept")
    with pytest.raises(ValueError, match="found a file"):
        write_phantom(tmp_path / "DATA", CONFIG)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("people", -1),
        ("test_people", -2),
        ("seed", -1),
        ("size", 255),
        ("size", 2049),
        ("bent_train", 1.5),
        ("bent_test", -0.1),
        ("artefacts", 2.0),
    ],
)
def test_bad_settings_are_named(field, value):
    with pytest.raises(ValueError, match=rf"^{field}: expected .*, found {value}$"):
        PhantomConfig(**{field: value})


def test_nobody_and_no_jobs_are_errors(tmp_path):
    with pytest.raises(ValueError, match="at least one person"):
        PhantomConfig(people=0, test_people=0)
    with pytest.raises(ValueError, match="jobs: expected 1 or more, found 0"):
        write_phantom(tmp_path, CONFIG, jobs=0)
