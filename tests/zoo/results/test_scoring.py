"""`zoo evaluate`: figures of a store, of a submission, and of two of them."""

import json
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest

import converters
from converters.masks import rasterize_labels
from converters.posture import is_bent
from converters.types import LabelSpace
from fusion.binary import binary_masks
from fusion.metrics.measures import MEASURES, measure_image
from fusion.metrics.scores import Counts, ImageScore, Scores
from fusion.metrics.summary import compare, summarize
from fusion.sources import submission
from fusion.sources.manifest import Manifest
from fusion.sources.store import PredictionStore, StoreWriter
from fusion.types import Prediction, SoftMask
from zoo.results import score_table
from zoo.results.scoring import evaluate
from zoo.results.truth import DataSetTruth, leading_folder
from zoo.source import DataSource

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def labels():
    return LabelSpace.load("hand_bones")


@pytest.fixture(scope="module")
def data(zoo, tmp_path_factory):
    root = tmp_path_factory.mktemp("phantom") / "data"
    zoo("phantom", root, "--people", 6, "--test-people", 1, "--size", 256)
    return root


@pytest.fixture(scope="module")
def samples(data, labels):
    return converters.read(data, format="handbone", subset="train", labels=labels)


def predict(sample, shift, without=()):
    """The truth, moved to the right, without some bones."""
    height, width = sample.size_hw
    masks = {}
    for name, mask in rasterize_labels(sample.instances, sample.size_hw).items():
        plane = np.roll(mask.full(sample.size_hw), shift, axis=1) * 255
        if name not in without:
            masks[name] = ((1.0, SoftMask((0, 0, width, height), plane)),)
    return Prediction(sample.key, sample.size_hw, "semantic", masks)


def write_store(out, samples, labels, predictions):
    images = {s.key: (*s.size_hw, s.file_name) for s in samples}
    manifest = Manifest("semantic", labels.name, labels.names, images, images_per_part=4)
    with StoreWriter(out, manifest) as writer:
        for prediction in predictions:
            writer.append(prediction)
    return out


@pytest.fixture(scope="module")
def stores(data, samples, labels, tmp_path_factory):
    root = tmp_path_factory.mktemp("stores")
    near = (predict(s, 1, ("Pisiform",) if i == 0 else ()) for i, s in enumerate(samples))
    far = (predict(s, 3) for s in samples)
    return (
        write_store(root / "near", samples, labels, near),
        write_store(root / "far", samples, labels, far),
    )


@pytest.fixture(scope="module")
def scored(stores, data, labels):
    source = DataSource.open(data)
    return [
        evaluate(path, source, labels.name, "train", lambda *_: None, tuple(MEASURES))
        for path in stores
    ]


def test_every_image_is_measured_as_it_would_be_alone(scored, samples, labels):
    for score, sample in zip(scored[1].images, samples, strict=True):
        truth = rasterize_labels(sample.instances, sample.size_hw)
        found = {n: predict(sample, 3).binary(n) for n in labels.names}
        alone = measure_image(sample.key, found, truth, labels, sample.size_hw, tuple(MEASURES))
        posture = {True: "bent", False: "straight", None: ""}[is_bent(sample, labels)]
        assert {name: (own.true, own.predicted) for name, own in score.objects.items()} == {
            name: (1, int(found[name].area > 0)) for name in truth
        }
        known = replace(alone, objects=score.objects)
        assert score == replace(known, patient=sample.group, posture=posture)


def test_several_processes_find_the_same(scored, stores, data, labels):
    source = DataSource.open(data)
    found = evaluate(stores[0], source, labels.name, "train", lambda *_: None, MEASURES, jobs=2)
    assert found.images == scored[0].images


def test_the_record_holds_all_that_was_measured(zoo, scored, stores, data, tmp_path, capsys):
    out = tmp_path / "scores.json"
    zoo("evaluate", stores[0], "--data", data, "--metrics", "all", "--json", out)
    found = json.loads(out.read_text(encoding="utf-8"))
    shared = {"shared", "shared_pooled"}
    assert set(found["measures"]) == {"dice", "iou", "nsd", "hd95", "asd", "ber", *shared}
    assert found["dice_shared"] == found["measures"]["shared"]["overall"]["mean"]
    assert found["dice_shared_pooled"] == found["measures"]["shared_pooled"]["overall"]["mean"]
    assert set(found["overlapping"]["classes"]) == set(found["measures"]["shared"]["classes"])
    assert "Pisiform" in found["overlapping"]["classes"]
    for name, recorded in found["measures"].items():
        expected = json.loads(json.dumps(summarize(scored[0], name).record()))
        assert recorded == expected
    assert found["images"] == 12
    assert found["patients"] == 6
    assert found["dice"] == pytest.approx(found["measures"]["dice"]["overall"]["mean"])
    low, high = found["measures"]["dice"]["overall"]["interval"]
    assert low < found["dice"] < high
    assert [entry["class"] for entry in found["missing"]] == ["Pisiform"]
    assert (found["extra"], found["measures"]["hd95"]["infinite"]) == ([], 1)
    first = found["per_image"][scored[0].images[0].key]
    assert first["hd95"]["Pisiform"] is None
    assert first["dice"]["Pisiform"] == first["nsd"]["Pisiform"] == 0
    each = found["pairs"]["each"]
    assert ["Triquetrum", "Pisiform"] in [entry["classes"] for entry in each]
    assert all(0 <= entry["dice"]["mean"] <= 1 for entry in each)
    assert found["confusion"][0]["pixels"] >= found["confusion"][-1]["pixels"] > 0
    assert 0 < found["miou"]["overall"] < found["dice"]


def test_the_table_says_what_was_asked(zoo, stores, data, capsys):
    zoo("evaluate", stores[0], "--data", data, "--metrics", "all")
    said = capsys.readouterr().out
    for part in ("12 images of 6 patients", "mIoU 0.", "NSD", "HD95 px", "BER", "Dice [95 %]"):
        assert part in said
    for part in ("shared pixels", "shared, pooled", "  of carpals"):
        assert part in said
    assert "Pisiform (at least 5% of the true area lies under others" in " ".join(said.split())
    for part in ("straight (", "missing", "Triquetrum + Pisiform", "true, but predicted as"):
        assert part in said
    assert "HD95 px is without 1 missing or extra objects" in said
    assert "missing objects: 1 (Pisiform in " in said
    assert max(map(len, said.splitlines())) <= 100
    zoo("evaluate", stores[0], "--data", data, "--metrics", "nsd")
    said = capsys.readouterr().out
    assert "NSD [95 %]" in said
    assert not any(part in said for part in ("Dice", "mIoU", "Pisiform + ", "missing"))
    zoo("evaluate", stores[0], "--data", data, "--metrics", "presence")
    assert capsys.readouterr().out.splitlines()[1].startswith("missing objects: 1")


def test_two_predictions_are_compared(zoo, scored, stores, data, tmp_path, capsys):
    out = tmp_path / "scores.json"
    zoo("evaluate", *stores[:1], "--against", stores[1], "--data", data, "--json", out)
    found = json.loads(out.read_text(encoding="utf-8"))["against"]
    assert found["source"] == str(stores[1])
    assert found["difference"] == "near - far"
    told = {"source", "difference", "images"}
    assert set(found) == told | {"dice", "iou", "shared", "shared_pooled"}
    for name in ("dice", "iou", "shared", "shared_pooled"):
        expected = json.loads(json.dumps(compare(*scored, name).record()))
        assert found[name] == expected
    assert found["dice"]["overall"]["interval"][0] > 0
    said = capsys.readouterr().out
    assert "near - far; * where" in said
    assert f"{found['dice']['overall']['mean']:+.4f}*" in said


def test_a_submission_is_compared_with_a_store(
    zoo, stores, samples, data, labels, tmp_path, capsys
):
    out = tmp_path / "far.csv"
    rows = (r for s in samples for r in submission.encode(predict(s, 3), s.file_name, labels))
    submission.write(out, rows)
    zoo("evaluate", out, "--against", stores[1], "--data", data, "--subset", "train")
    said = capsys.readouterr().out
    assert "+0.0000 " in said
    assert "*" not in said.split("leaves out 0")[1]


def test_other_images_are_not_compared(zoo, stores, samples, data, labels, tmp_path, capsys):
    some, others = (
        write_store(tmp_path / name, few, labels, (predict(s, 0) for s in few))
        for name, few in (("some", samples[:2]), ("others", samples[2:4]))
    )
    json_out = tmp_path / "x.json"
    zoo("evaluate", some, "--against", others, "--data", data, "--json", json_out, code=2)
    said = capsys.readouterr().err
    assert "--against: expected images that some and others have, found none" in said
    assert not json_out.exists()


def write_rows(path, samples, labels, shift=1, names=None):
    names = labels.names if names is None else names
    rows = (r for s in samples for r in submission.encode(predict(s, shift), s.file_name, names))
    submission.write(path, rows)
    return path


def test_a_submission_is_scored_on_what_it_speaks_of(samples, data, labels, tmp_path):
    path = write_rows(tmp_path / "wrist_1.csv", samples, labels, 0, labels.groups["carpals"])
    scores = evaluate(path, DataSource.open(data), labels.name, "train", _quiet)
    assert scores.labels.names == labels.groups["carpals"]
    assert scores.mean() == 1


def exclude(path, samples):
    text = f"version: 1\nexclude_images: [{{key: {samples[0].key}, why: noise}}]\n"
    path.write_text(text, encoding="utf-8")
    return path


def test_images_that_corrections_exclude_are_not_scored(samples, data, labels, stores, tmp_path):
    path = write_rows(tmp_path / "near.csv", samples, labels)
    edits = exclude(tmp_path / "edits.yaml", samples)
    for source in (path, stores[0]):
        found = evaluate(
            source, DataSource.open(data, None, edits), labels.name, "train", lambda *_: None
        )
        assert [image.key for image in found.images] == [s.key for s in samples[1:]]


REFUSED = {
    "foreign image": (
        lambda rows: [*rows, *(r._replace(image_name="other_1.png") for r in rows[-29:])],
        "near.csv: expected images of the data set .*; found .*'other_1.png'",
    ),
    "missing image": (lambda rows: rows[29:], "near.csv: 1 of 12 images are missing"),
    "unknown class": (
        lambda rows: [r._replace(label=r.label.replace("Ulna", "Talus")) for r in rows],
        "near.csv: expected classes of 'hand_bones', found 'Talus'",
    ),
    "twice": (lambda rows: [*rows, rows[3]], "near.csv line .*comes twice"),
    "lacking class": (lambda rows: rows[:-1], "near.csv: .* has no row of 'Ulna'"),
    "bad code": (
        lambda rows: [rows[0]._replace(rle="9 2 4 1"), *rows[1:]],
        "near.csv line 2: .*sorted",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_submission_that_does_not_fit_is_refused(
    zoo, case, samples, data, labels, tmp_path, capsys
):
    change, message = REFUSED[case]
    path = write_rows(tmp_path / "near.csv", samples, labels)
    submission.write(path, change(list(submission.read(path))))
    zoo("evaluate", path, "--data", data, "--subset", "train", code=2)
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert re.search(message, line), line


def test_an_unknown_metric_is_refused(zoo, stores, data, capsys):
    zoo("evaluate", stores[0], "--data", data, "--metrics", "dice,f1", code=2)
    assert "metric 'f1': expected of dice, iou" in capsys.readouterr().err


def test_no_processes_are_refused(zoo, stores, data, capsys):
    zoo("evaluate", stores[0], "--data", data, "--jobs", 0, code=2)
    assert "jobs: expected 1 or more, found 0" in capsys.readouterr().err


WASTE_HW = (40, 64)


@pytest.fixture(scope="module")
def waste(tmp_path_factory):
    """One image of COCO with two things; the background is not annotated."""
    root = tmp_path_factory.mktemp("waste")
    cv2.imwrite(str(root / "a_1.png"), np.zeros(WASTE_HW, np.uint8))
    rings = {1: [10, 8, 29, 8, 29, 27, 10, 27], 2: [40, 10, 49, 10, 49, 29, 40, 29]}
    document = {
        "images": [{"id": 1, "file_name": "a_1.png", "height": 40, "width": 64}],
        "categories": [{"id": 1, "name": "Paper"}, {"id": 2, "name": "Metal"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": i, "segmentation": [ring], "iscrowd": 0}
            for i, ring in rings.items()
        ],
    }
    (root / "annotations.json").write_text(json.dumps(document), encoding="utf-8")
    return root


def test_a_space_with_background_shows_miou_first(zoo, waste, tmp_path, capsys):
    labels = LabelSpace.load("waste")
    (sample,) = DataSource.open(waste).annotated(labels, "all").values()
    store = write_store(tmp_path / "store", [sample], labels, [predict(sample, 2)])
    zoo("evaluate", store, "--data", waste, "--json", tmp_path / "scores.json")
    said = capsys.readouterr().out.splitlines()
    found = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))["miou"]
    # By hand: 19 and 9 columns of 19 rows (COCO's corners are between pixels), each moved by 2.
    background, moved = 40 * 64 - 28 * 19, 4 * 19
    expected = {
        "Background": (background - moved) / (background + moved),
        "Paper": 17 / 21,
        "Metal": 7 / 11,
    }
    assert found["classes"] == pytest.approx(expected)
    assert said[1].startswith(f"mIoU {np.mean(list(expected.values())):.4f}")
    assert said[2].split()[:2] == ["IoU", "Dice"]


def test_a_store_is_scored_on_what_it_speaks_of(data, samples, labels, tmp_path):
    """A wrist model's store: that it says nothing of fingers is no miss."""
    carpals = labels.groups["carpals"]
    images = {s.key: (*s.size_hw, s.file_name) for s in samples}
    manifest = Manifest("semantic", labels.name, labels.names, images, classes=carpals)
    with StoreWriter(tmp_path / "wrist", manifest) as writer:
        for sample in samples:
            seen = predict(sample, 0)
            masks = {n: seen.masks[n] for n in carpals if n in seen.masks}
            writer.append(replace(seen, masks=masks, classes=frozenset(carpals)))
    scores = evaluate(tmp_path / "wrist", DataSource.open(data), labels.name, "train", _quiet)
    assert set(scores.labels.names) == set(carpals)
    assert scores.mean() == 1
    assert scores.shared() == 1


def _quiet(done, total, note):
    pass


@pytest.mark.parametrize(("once", "area"), [(True, 100), (False, 200)])
def test_several_objects_of_a_class_are_one_mask(labels, once, area):
    """Of a bone the best detection counts, of rubbish every piece."""
    pieces = tuple((0.9, SoftMask((x, 0, 10, 10), np.full((1, 1), 255, np.uint8))) for x in (0, 20))
    seen = Prediction("a", (10, 40), "instance", {"Ulna": pieces})
    assert binary_masks(seen, replace(labels, once=once))["Ulna"].area == area


def test_what_is_not_found_is_empty(labels):
    found = binary_masks(Prediction("a", (10, 40), "instance", {}), labels)
    assert set(found) == set(labels.names)
    assert not any(mask.area for mask in found.values())


def test_columns_stay_below_each_other_with_long_names():
    names = ("a", "Cardiomediastinum and what is behind it")
    labels = LabelSpace("chest", names)
    image = ImageScore("x", dict.fromkeys(names, 0.5), {}, dict.fromkeys(names, Counts(1, 2, 2)))
    scores = Scores(labels, [image])
    said = score_table.describe(scores, ["dice"], score_table.summarize_all(scores, ["dice"]))
    ends = {line.index("0.5000") for line in said.splitlines() if "0.5000" in line}
    assert len(ends) == 1


def test_what_is_no_prediction_is_said_before_data_are_read(zoo, tmp_path, capsys):
    one_line = tmp_path / "a.json"
    one_line.write_text("[" + "1, " * 100_000 + "1]")
    for name, said in (("nothing", "nothing: expected a prediction"), ("a.json", "the header")):
        zoo("evaluate", tmp_path / name, "--data", tmp_path / "no data", code=2)
        told = capsys.readouterr().err
        assert said in told
        assert len(told) < 500


def test_two_are_compared_object_by_object(zoo, stores, data, tmp_path, capsys):
    out = tmp_path / "scores.json"
    zoo("evaluate", stores[0], "--against", stores[1], "--data", data, "--metrics", "objects",
        "--json", out)  # fmt: skip
    found = json.loads(out.read_text())
    each = found["against"]["objects"]
    assert set(each) == set(found["objects"])
    for name, own in found["objects"].items():
        counts = [image["objects"].get(name, {}) for image in found["per_image"].values()]
        assert own["true"] == sum(count.get("true", 0) for count in counts)
    assert "objects" in capsys.readouterr().out
    zoo("evaluate", stores[0], "--against", stores[0], "--data", data, "--metrics", "objects",
        "--json", out)  # fmt: skip
    same = json.loads(out.read_text())["against"]["objects"]
    assert {own["pq"]["mean"] for own in same.values()} == {0.0}


def test_a_data_set_is_no_prediction(zoo, data, tmp_path, capsys):
    zoo("convert", data, "--to", "coco", "--out", tmp_path / "coco")
    zoo("evaluate", tmp_path / "coco", "--data", data, code=2)
    assert "become one by `zoo convert" in capsys.readouterr().err


def test_an_unknown_image_is_refused_beside_one_without_annotations(
    zoo, samples, labels, tmp_path, capsys
):
    """What has no truth is told from what the data set does not know, also where there is both."""
    bare = replace(samples[1], instances=())
    converters.write([samples[0], bare], tmp_path / "coco", format="coco", labels=labels)
    foreign = replace(samples[2], key="elsewhere")
    for name, others, words in (
        ("bare", [bare], f"1 images without annotations are not scored: {bare.key}"),
        ("both", [bare, foreign], "'elsewhere' has no truth in this data set"),
    ):
        nothing = [Prediction(other.key, other.size_hw, "semantic", {}) for other in others]
        store = write_store(
            tmp_path / name, [samples[0], *others], labels, [predict(samples[0], 1), *nothing]
        )
        code = 0 if name == "bare" else 2
        zoo("evaluate", store, "--data", tmp_path / "coco", code=code)
        assert words in " ".join(capsys.readouterr().err.split())


# --- images that are known from another folder


@pytest.mark.parametrize(
    ("predicted", "known", "found"),
    [
        (("a", "b"), ("images/a", "images/b", "images/c", "d"), ("images/", "")),
        (("images/a", "images/b"), ("a", "b"), ("", "images/")),
        (("x/y/a",), ("a",), ("", "x/y/")),
        (("a",), ("a", "images/a"), None),
        (("a",), ("train/a", "test/a"), None),
        (("a", "b"), ("train/a", "test/b"), None),
        (("a", "b"), ("images/a",), None),
        (("left/a",), ("right/a",), None),
        (("x/a", "y/a"), ("a",), None),
        (("a",), ("images-a",), None),
        ((), ("a",), None),
    ],
)
def test_keys_differ_by_one_folder_or_are_not_joined(predicted, known, found):
    def named(keys):
        return {key: key.rpartition("/")[2] for key in keys}

    assert leading_folder(named(predicted), named(known)) == found
    # An image of the same name, but not of the same format, is another one.
    assert leading_folder(dict.fromkeys(predicted, "other"), named(known)) is None


def by_other_keys(store, out, change, groups):
    """The same store by other keys."""
    old = PredictionStore(store)
    images = {change(key): entry for key, entry in old.manifest.images.items()}
    manifest = replace(
        old.manifest, images=images, groups={change(k): g for k, g in groups.items()}
    )
    with StoreWriter(out, manifest) as writer:
        for prediction in old:
            writer.append(replace(prediction, key=change(prediction.key)))
    return out


@pytest.mark.parametrize("words", [("evaluate", "--json"), ("report", "--out")])
def test_a_store_of_the_folder_above_is_held_to_the_data_set(zoo, cells, tmp_path, capsys, words):
    first, second, _ = PredictionStore(cells / "apart").keys()
    names = dict.fromkeys((first, second), "one person")
    near = by_other_keys(cells / "apart", tmp_path / "near" / "s", str, names)
    above = by_other_keys(cells / "apart", tmp_path / "above" / "s", "images/{}".format, names)
    said = []
    for store in (near, above):
        zoo(words[0], store, "--data", cells / "data", words[1], store.parent / "out")
        told = capsys.readouterr()
        said.append([line for line in told.out.splitlines() if str(tmp_path) not in line])
    assert said[0] == said[1]
    if words[0] == "evaluate":
        assert said[1][0] == "3 images of 2 patients"
    note = f"its images 'NAME' are taken for those that {above} calls 'images/NAME'"
    assert note in " ".join(told.err.split())


def test_a_store_of_the_folder_of_images_is_held_to_the_data_set(cells, tmp_path):
    store = PredictionStore(cells / "apart")
    read = {f"images/{s.key}": s for s in converters.read(cells / "data")}
    samples = {key: replace(sample, key=key) for key, sample in read.items()}
    other = replace(samples["images/row_1"], key="other/a")
    known = DataSetTruth(samples, {"other/a": other}).joined(store, tmp_path)
    assert set(known.samples) == set(store.keys())
    assert all(sample.key == key for key, sample in known.samples.items())
    assert known.left_out == {}


def test_the_images_that_both_have_are_compared(zoo, cells, tmp_path, capsys):
    whole, keys = PredictionStore(cells / "plain"), PredictionStore(cells / "plain").keys()
    images = {key: whole.manifest.images[key] for key in keys[:2]}
    with StoreWriter(tmp_path / "few", replace(whole.manifest, images=images)) as writer:
        for key in images:
            writer.append(whole[key])
    scores = tmp_path / "scores.json"
    words = ("--data", cells / "data", "--against")
    zoo("evaluate", cells / "apart", *words, tmp_path / "few", "--json", scores)
    found = json.loads(scores.read_text(encoding="utf-8"))
    note = "compared on the 2 images that both have; left out are 1 of apart"
    assert note in " ".join(capsys.readouterr().err.split())
    assert (found["images"], found["objects"]["cell"]["true"]) == (3, 8)
    assert found["against"]["images"] == 2
    assert found["against"]["objects"]["cell"]["pq"]["mean"] > 0.5
    zoo(
        "report",
        cells / "apart",
        tmp_path / "few",
        "--data",
        cells / "data",
        "--out",
        tmp_path / "page",
    )
    record = json.loads((tmp_path / "page" / "report.json").read_text(encoding="utf-8"))
    assert {entry["images"] for entry in record["entries"].values()} == {2}
    note = f"only the 2 images that all sources have are taken; left out are 1 of {cells / 'apart'}"
    assert note in " ".join(capsys.readouterr().err.split())
