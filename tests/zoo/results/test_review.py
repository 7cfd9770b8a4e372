"""`zoo review`: the images that are worth most, drafts in them, and the way there and back."""

import csv
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from shapely.geometry import box

import converters
from converters.masks import rasterize_labels
from converters.types import Instance
from fusion import Mean
from fusion.binary import binary_masks
from fusion.metrics.scores import dice
from fusion.sources.ensemble import Ensemble
from fusion.sources.manifest import Manifest
from fusion.sources.store import StoreWriter
from zoo.results import review as module
from zoo.results.review import CVAT, DRAFTS, HEADER, README, TABLE
from zoo.source import DataSource

FORMATS = ("cvat", "coco", "labelme")


def read_table(folder):
    with (folder / TABLE).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def write_store(toys, shift_truth, tmp_path):
    """Return a function: write a store of the toys' truth, so many pixels aside, image by image."""

    def write(name, *shifts):
        images = {s.key: (*s.size_hw, s.file_name) for s in toys.samples}
        manifest = Manifest("semantic", "toys", toys.labels.names, images, space=toys.labels)
        with StoreWriter(tmp_path / name, manifest) as writer:
            for sample, shift in zip(toys.samples, shifts, strict=True):
                writer.append(shift_truth(sample, shift))
        return tmp_path / name

    return write


def test_images_on_which_sources_differ_come_first(write_store, work, toys, zoo, tmp_path, capsys):
    a = write_store("a", 0, 0, 0, 0, 0, 0)
    b = write_store("b", 0, 1, 0, 4, 0, 2)
    zoo("review", a, b, "--data", work / "data", "--top", 4, "--out", tmp_path / "out")
    rows = read_table(tmp_path / "out")
    keys = list(dict.fromkeys(row["image"] for row in rows))
    assert keys == [toys.samples[n].key for n in (3, 5, 1)]
    said = capsys.readouterr().out
    assert "4 of 6 images with drafts" in said
    assert f"1. {toys.samples[3].key}: 0." in said
    assert "4 of them have annotations" in said
    back = converters.read(tmp_path / "out" / DRAFTS, subset="all", labels=toys.labels)
    # Of images on which all agree the first by name.
    assert {s.key for s in back} == {*keys, toys.samples[0].key}


def test_the_table_says_what_and_where(write_store, work, toys, zoo, tmp_path):
    a, b = write_store("a", *[0] * 6), write_store("b", *[0] * 5, 3)
    zoo("review", a, b, "--data", work / "data", "--top", 1, "--out", tmp_path / "out")
    rows = read_table(tmp_path / "out")
    assert set(rows[0]) == set(HEADER)
    assert [float(row["worth"]) for row in rows] == sorted(
        (float(row["worth"]) for row in rows), reverse=True
    )
    sample = toys.samples[5]
    truth = rasterize_labels(sample.instances, sample.size_hw)
    for row in rows:
        mask = truth[row["class"]].full(sample.size_hw).astype(bool)
        moved = np.roll(mask, 3, axis=1)
        # The mean of the two has one half where only one is, and that counts as the class.
        draft = mask | moved
        p = (mask.astype(float) + moved) / 2
        worth = 1 - 2 * (p * draft).sum() / (p.sum() + draft.sum())
        assert float(row["worth"]) == pytest.approx(worth, abs=2e-3)
        assert int(row["draft_px"]) == draft.sum()
        assert int(row["differing_px"]) == (draft ^ mask).sum() + (draft ^ moved).sum()
        x, y, width, height = (int(row[name]) for name in ("x", "y", "width", "height"))
        assert (width, height) == (3, mask.any(axis=1).sum())
        assert (draft & ~(mask & moved))[y : y + height, x : x + width].all()
        assert row["farthest_source"] == "a"


def test_drafts_are_the_fused_masks(stores, work, toys, zoo, tmp_path):
    zoo("review", *stores, "--data", work / "data", "--out", tmp_path / "out", "--method", "mean")
    back = converters.read(tmp_path / "out" / DRAFTS, subset="all", labels=toys.labels)
    assert [s.key for s in back] == [s.key for s in toys.samples]
    for sample, heard in zip(back, Ensemble.open(stores), strict=True):
        fused = binary_masks(Mean()(heard, toys.labels), toys.labels)
        drafts = rasterize_labels(sample.instances, sample.size_hw)
        assert all(dice(drafts[n], fused[n]) == 1 for n in toys.labels.names)


@pytest.mark.slow
def test_several_processes_choose_the_same(stores, work, zoo, tmp_path):
    options = ("--data", work / "data", "--top", 3)
    zoo("review", *stores, *options, "--out", tmp_path / "one")
    zoo("review", *reversed(stores), *options, "--out", tmp_path / "two", "--jobs", 2)
    assert (tmp_path / "one" / TABLE).read_bytes() == (tmp_path / "two" / TABLE).read_bytes()
    assert len({row["image"] for row in read_table(tmp_path / "one")}) == 3


def test_votes_are_ranked_too(files, work, toys, zoo, tmp_path):
    options = ("--data", work / "data", "--labels", toys.labels_file, "--method", "vote")
    zoo("review", *files, *options, "--top", 2, "--out", tmp_path / "out")
    assert 0 < float(read_table(tmp_path / "out")[0]["image_worth"]) < 1


# --- there and back


def move_datumaro(folder, label):
    path = folder / "annotations" / "default.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    names = [one["name"] for one in record["categories"]["label"]["labels"]]
    for shape in record["items"][0]["annotations"]:
        if names[shape["label_id"]] == label:
            shape["points"] = [v + 4 * (i % 2 == 0) for i, v in enumerate(shape["points"])]
    path.write_text(json.dumps(record), encoding="utf-8")


def move_coco(folder, label):
    path = next(p for p in folder.rglob("*.json") if "annotations" in p.read_text(encoding="utf-8"))
    record = json.loads(path.read_text(encoding="utf-8"))
    number = next(c["id"] for c in record["categories"] if c["name"] == label)
    first = record["images"][0]["id"]
    for one in record["annotations"]:
        if one["category_id"] == number and one["image_id"] == first:
            rings = one["segmentation"]
            one["segmentation"] = [[v + 4 * (i % 2 == 0) for i, v in enumerate(r)] for r in rings]
    path.write_text(json.dumps(record), encoding="utf-8")


def move_labelme(folder, label):
    for path in sorted(folder.rglob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if "shapes" in record:
            for shape in record["shapes"]:
                if shape["label"] == label:
                    shape["points"] = [[x + 4, y] for x, y in shape["points"]]
            path.write_text(json.dumps(record), encoding="utf-8")
            return


@pytest.mark.slow
@pytest.mark.parametrize("to", FORMATS)
def test_one_polygon_is_corrected_and_the_scores_tell(
    to, write_store, work, toys, zoo, tmp_path, capsys
):
    # The network saw tile-1 four pixels to the right, and the annotator says that it was right.
    a, data, out = write_store("a", 4, 0, 0, 0, 0, 0), work / "data", tmp_path / "out"
    exact = write_store("exact", *[0] * 6)
    zoo("review", exact, "--data", data, "--top", 1, "--to", to, "--out", out)
    drafts = out / DRAFTS
    assert converters.recognise(drafts) == CVAT.get(to, to)
    capsys.readouterr()
    zoo("evaluate", a, "--data", data, "--edits", drafts)
    assert "corrections: 0 scored images" in capsys.readouterr().out

    {"cvat": move_datumaro, "coco": move_coco, "labelme": move_labelme}[to](drafts, "tile-1")
    zoo("evaluate", a, "--data", data, "--edits", drafts, "--json", tmp_path / "s.json")
    said = capsys.readouterr().out
    assert "corrections: 1 scored images have other objects than before" in said
    assert "  tile-1" in said
    assert "  tile-2" not in said.split("corrections:")[1]
    found = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["corrections"]
    assert found["changed"] == [toys.samples[0].key]
    sample = toys.samples[0]
    tile = rasterize_labels(sample.instances, sample.size_hw)["tile-1"].full(sample.size_hw)
    lost = 1 - 2 * (tile & np.roll(tile, 4, axis=1)).sum() / (2 * tile.sum())
    change = found["measures"]["dice"]["difference"]["classes"]["tile-1"]["mean"]
    assert change == pytest.approx(lost / 6)
    before, after = (found["measures"]["dice"][w]["overall"]["mean"] for w in ("before", "after"))
    assert after - before == pytest.approx(lost / 6 / 9)


def test_an_edits_file_tells_before_and_after_too(write_store, work, toys, zoo, tmp_path, capsys):
    a, key = write_store("a", *[0] * 6), toys.samples[2].key
    edits = tmp_path / "edits.yaml"
    gone = f"exclude_images: [{{key: {toys.samples[4].key}}}]\n"
    edits.write_text(f"version: 1\n{gone}swap_labels: [{{key: {key}, labels: [tile-1, tile-2]}}]\n")
    zoo("evaluate", a, "--data", work / "data", "--edits", edits, "--metrics", "dice,hd95")
    said = capsys.readouterr().out
    assert "corrections: 1 scored images have other objects than before, 1 are left out" in said
    assert "on the 5 images that count before and after" in said
    table = said.split("corrections:")[1].splitlines()
    lines = [row.replace("*", "").split() for row in table if row.startswith("  tile-")]
    # Four of five images are as they were.
    assert lines[:2] == [[f"tile-{n}", "1.0000", "0.8000", "-0.2000"] for n in (1, 2)]


def test_drafts_that_a_person_has_corrected_are_not_replaced(stores, work, zoo, tmp_path, capsys):
    command = ("review", *stores, "--data", work / "data", "--top", 1, "--out", tmp_path / "out")
    zoo(*command)
    zoo(*command)
    move_datumaro(tmp_path / "out" / DRAFTS, "tile-1")
    path = tmp_path / "out" / DRAFTS / "annotations" / "default.json"
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    kept = path.read_bytes()
    zoo(*command, code=2)
    assert "changed or removed since" in capsys.readouterr().err
    assert path.read_bytes() == kept


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--top", 0), "--top: expected 1 or more, found 0"),
        (("--to", "images"), "--to images: expected a format that can be written"),
        (("--to", "cvatt"), "format 'cvatt' (did you mean 'cvat'?)"),
    ],
)
def test_what_cannot_be_is_refused_before_the_work(
    options, said, stores, work, zoo, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(module, "open_fusion", None)
    zoo("review", *stores, "--data", work / "data", "--out", tmp_path / "o", *options, code=2)
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "o").exists()


def test_the_way_back_is_written_down(stores, work, zoo, tmp_path):
    zoo("review", *stores, "--data", work / "data", "--top", 1, "--out", tmp_path / "an out")
    text = (tmp_path / "an out" / README).read_text(encoding="utf-8")
    assert f"--data {work / 'data'} --edits '{tmp_path / 'an out' / DRAFTS}'" in text
    assert 'format "Datumaro 1.0"' in text


# --- corrected images as corrections


@pytest.fixture
def corrected(toys, tmp_path):
    """Return a function: write some samples as a data set of corrected images."""

    def write(samples, labels=toys.labels):
        converters.write(samples, tmp_path / "corrected", format="coco", labels=labels)
        return tmp_path / "corrected"

    return write


def test_classes_that_were_not_reviewed_stay(corrected, toys, work):
    sample = toys.samples[1]
    sheet = tuple(i for i in sample.instances if i.label == "sheet")
    folder = corrected([replace(sample, instances=sheet)], toys.labels.only(["sheet", "tile-1"]))
    source = DataSource.open(work / "data", edits=folder)
    before = {s.key: s for s in source.uncorrected().read(toys.labels, "all")}
    after = {s.key: s for s in source.read(toys.labels, "all")}
    assert before.keys() == after.keys()
    names = [i.label for i in after[sample.key].instances]
    assert names == [n for n in toys.labels.names if n != "tile-1"]
    assert after[sample.key].group == before[sample.key].group
    assert all(after[k] == before[k] for k in before if k != sample.key)


def test_another_correction_has_another_digest(corrected, toys, work):
    first = DataSource.open(work / "data", edits=corrected(toys.samples[:1])).edits.digest
    again = DataSource.open(work / "data", edits=corrected(toys.samples[:1])).edits.digest
    fewer = replace(toys.samples[0], instances=tuple(toys.samples[0].instances)[1:])
    assert first == again
    assert DataSource.open(work / "data", edits=corrected([fewer])).edits.digest != first


@pytest.mark.parametrize("wrong", ["key", "size"])
def test_corrected_images_of_another_data_set_are_refused(
    wrong, corrected, stores, work, toys, zoo, tmp_path, capsys
):
    sample = toys.samples[0]
    if wrong == "key":
        folder = corrected([replace(sample, key="stranger")])
    else:
        image = tmp_path / sample.file_name
        cv2.imwrite(str(image), np.zeros((40, 48), np.uint8))
        tile = Instance("tile-1", box(5, 5, 20, 20))
        folder = corrected([replace(sample, image=image, size_hw=(40, 48), instances=(tile,))])
    zoo("evaluate", stores[0], "--data", work / "data", "--edits", folder, code=2)
    said = capsys.readouterr().err
    assert said.startswith(f"zoo: {folder}: ")
    expected = {"key": "found 'stranger', not in it", "size": "expected (96, 64) pixels"}[wrong]
    assert expected in said
