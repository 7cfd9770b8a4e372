"""Two predictions beside each other: what is counted, who is right, what the page needs."""

import json
import re

import cv2
import numpy as np
import pytest
from shapely import affinity
from shapely.geometry import MultiPolygon, Point, box

from converters.masks import EMPTY, CropMask, crop, encode_rle, rasterize_labels
from converters.pictures import colors, drawing
from converters.types import Instance, LabelSpace, Sample
from fusion.metrics.scores import dice
from fusion.sources import submission
from fusion.sources.manifest import Manifest
from fusion.sources.store import StoreWriter
from fusion.types import Prediction, SoftMask
from zoo.report import intervals
from zoo.report.compare import command as comparing
from zoo.report.compare import page as compare_page
from zoo.report.compare import pictures as compare_pictures
from zoo.results.disagreement import difference, limit_per_class, pair_masks
from zoo.results.truth import DataSetTruth

SIZE = (120, 170)  # not square
NAMES = ("shaft", "left one", "right-one", "Ulna")
LABELS = LabelSpace("toy", NAMES, {"wrist": ("left one", "right-one")})


def ellipse(x, y, a, b):
    return affinity.translate(affinity.scale(Point(0, 0).buffer(1), a, b), x, y)


OUTLINES = {
    "shaft": ellipse(40, 80, 20, 30).difference(ellipse(40, 80, 6, 8)),  # a hole
    "left one": ellipse(100, 40, 18, 14),
    "right-one": ellipse(118, 44, 16, 15),  # an overlap
    "Ulna": MultiPolygon([box(100, 90, 120, 119), box(130, 100, 169, 119)]),  # parts, a border
}
KEYS = ("a_b/image_1_L", "a_b/image_1_R", "c/image_2")


def quiet(done, total, note=""):
    pass


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    found = {}
    for i, key in enumerate(KEYS):
        path = folder / f"{key}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.random.default_rng(i).integers(40, 160, SIZE, np.uint8))
        instances = tuple(Instance(name, outline) for name, outline in OUTLINES.items())
        found[key] = Sample(key, path, SIZE, instances, group=key.split("/")[0])
    return found


def planes(sample, shift_px=0, without=()):
    truth = rasterize_labels(sample.instances, SIZE)
    return {
        name: np.roll(mask.full(SIZE), shift_px, axis=1)
        for name, mask in truth.items()
        if name not in without
    }


def write_store(path, samples, keys=KEYS, classes=(), **options):
    space = path.parent / "toy.yaml"
    LABELS.save(space)
    images = {key: (*SIZE, samples[key].file_name) for key in keys}
    manifest = Manifest("semantic", str(space), NAMES, images, classes=classes)
    with StoreWriter(path, manifest) as writer:
        for key in keys:
            masks = {
                name: ((1.0, SoftMask((0, 0, SIZE[1], SIZE[0]), plane * np.uint8(255))),)
                for name, plane in planes(samples[key], **options).items()
                if plane.any() and (not classes or name in classes)
            }
            writer.append(Prediction(key, SIZE, "semantic", masks))
    return path


def write_csv(path, samples, keys=KEYS, names=NAMES, **options):
    rows = []
    for key in keys:
        found = planes(samples[key], **options)
        for name in names:
            code = encode_rle(crop(found[name]), SIZE) if name in found else ""
            rows.append(submission.RleRow(samples[key].file_name, name, code))
    submission.write(path, rows)
    return path


def count(paths, samples=None):
    two = comparing.SourcePair.open(paths, DataSetTruth(samples or {}, {}), LABELS)
    return comparing.count_differences(two, samples or {}, quiet)


# --- one pair of masks

SHAPES = {
    "empty": np.zeros(SIZE, np.uint8),
    "full": np.ones(SIZE, np.uint8),
    "hole": rasterize_labels([Instance("x", OUTLINES["shaft"])], SIZE)["x"].full(SIZE),
    "parts": rasterize_labels([Instance("x", OUTLINES["Ulna"])], SIZE)["x"].full(SIZE),
    "disk": rasterize_labels([Instance("x", OUTLINES["left one"])], SIZE)["x"].full(SIZE),
}


@pytest.mark.parametrize("one", SHAPES)
@pytest.mark.parametrize("other", SHAPES)
def test_pixels_are_counted_as_on_whole_planes(one, other):
    a, b = SHAPES[one] > 0, SHAPES[other] > 0
    pair = pair_masks("k", "x", crop(SHAPES[one]), crop(SHAPES[other]))
    expected = (a & b).sum(), (a & ~b).sum(), (b & ~a).sum()
    assert (pair.both, pair.only_a, pair.only_b) == expected
    assert pair.dice == pytest.approx(dice(crop(SHAPES[one]), crop(SHAPES[other])))
    assert pair.box_xywh == crop(a ^ b).box_xywh
    assert np.array_equal(difference(crop(a), crop(b)).full(SIZE), (a ^ b).astype(np.uint8))


@pytest.mark.parametrize(
    ("one", "other", "who"),
    [
        ("empty", "disk", "A"),
        ("disk", "empty", "B"),
        ("empty", "empty", ""),
        ("disk", "full", ""),
        ("disk", "parts", ""),
    ],
)
def test_who_draws_nothing(one, other, who):
    assert pair_masks("k", "x", crop(SHAPES[one]), crop(SHAPES[other])).empty == who


def test_one_class_does_not_fill_the_page():
    disk = crop(SHAPES["disk"])
    pairs = [pair_masks(str(i), "x", disk, EMPTY) for i in range(5)]
    pairs.append(pair_masks("k", "y", disk, EMPTY))
    assert [pair.label for pair in limit_per_class(pairs, 4, 2)] == ["x", "x", "y"]


# --- two sources


def test_a_store_and_its_submission_are_the_same(tmp_path, samples):
    store = write_store(tmp_path / "store", samples)
    found = count((store, write_csv(tmp_path / "same.csv", samples)))
    assert found.mean_dice == 1
    assert found.differing() == []
    assert compare_page.headline(found).startswith("A and B are the same to the pixel: 12 masks")


def test_submissions_alone_are_counted_without_sizes(tmp_path, samples):
    paths = (
        write_csv(tmp_path / "a.csv", samples),
        write_csv(tmp_path / "b.csv", samples, shift_px=3, without=("shaft",)),
    )
    blind, seeing = count(paths), count(paths, samples)
    kept = [(pair.both, pair.only_a, pair.only_b) for pair in blind.pairs]
    assert kept == [(pair.both, pair.only_a, pair.only_b) for pair in seeing.pairs]
    assert {pair.box_xywh for pair in blind.pairs} == {(0, 0, 0, 0)}
    assert all(pair.box_xywh[2] for pair in seeing.pairs)
    assert blind.against_truth is None


def test_rows_are_joined_by_name(tmp_path, samples):
    a = write_csv(tmp_path / "a.csv", samples)
    b = write_csv(tmp_path / "b.csv", samples, keys=KEYS[::-1], names=NAMES[::-1])
    assert count((a, b)).differing() == []
    assert count((a, b), samples).differing() == []


def test_stores_in_another_order_are_joined_by_key(tmp_path, samples):
    a = write_store(tmp_path / "a", samples)
    b = write_store(tmp_path / "b", samples, keys=(KEYS[2], KEYS[0], KEYS[1]))
    assert count((a, b)).differing() == []


def test_only_what_both_have_is_compared(tmp_path, samples):
    a = write_store(tmp_path / "a", samples, keys=KEYS[:2])
    b = write_store(tmp_path / "b", samples, keys=KEYS[1:], classes=("left one", "Ulna"))
    found = count((a, b))
    assert found.labels.names == ("left one", "Ulna")
    assert {pair.key for pair in found.pairs} == {KEYS[1]}
    assert found.images_only_in == ((KEYS[0],), (KEYS[2],))
    assert found.classes_only_in == (("shaft", "right-one"), ())
    said = comparing.describe(found, tmp_path)
    assert f"images that only a has, left out: 1, such as {KEYS[0]}" in said
    assert "classes that only a has, left out: 2, such as shaft" in said
    assert f"images that only b has, left out: 1, such as {KEYS[2]}" in said


def test_nothing_in_common_is_refused(tmp_path, samples):
    a = write_store(tmp_path / "a", samples, keys=KEYS[:1])
    b = write_store(tmp_path / "b", samples, keys=KEYS[1:])
    with pytest.raises(ValueError, match="images that both have, found none"):
        count((a, b))
    c = write_csv(tmp_path / "c.csv", samples, names=("shaft",))
    d = write_csv(tmp_path / "d.csv", samples, names=("Ulna",))
    with pytest.raises(ValueError, match="classes of 'toy' that both have"):
        count((c, d))


def test_files_of_the_same_name_are_told_apart(tmp_path, samples):
    paths = []
    for run in ("run_1", "run_2"):
        (tmp_path / run).mkdir()
        paths.append(write_csv(tmp_path / run / "submission.csv", samples))
    assert count(tuple(paths)).names == ("run_1/submission", "run_2/submission")


def test_the_truth_says_who_is_right(tmp_path, samples):
    a = write_store(tmp_path / "a", samples, shift_px=6)
    b = write_store(tmp_path / "b", samples)
    found = count((a, b), samples)
    assert found.against_truth.b.mean() == 1
    truth = rasterize_labels(samples[KEYS[0]].instances, SIZE)["left one"]
    expected = dice(crop(np.roll(truth.full(SIZE), 6, axis=1)), truth)
    row = next(row for row in found.per_class() if row.label == "left one")
    assert row.truth == (pytest.approx(expected), 1)
    assert row.gain.mean == pytest.approx(expected - 1)
    assert "B is better than A" in compare_page.headline(found)


def test_worst_comes_first(tmp_path, samples):
    a = write_store(tmp_path / "a", samples)
    b = write_store(tmp_path / "b", samples, shift_px=2, without=("Ulna",))
    found = count((a, b))
    assert [pair.label for pair in found.differing()][:3] == ["Ulna"] * 3
    values = [pair.dice for pair in found.differing()]
    assert values == sorted(values)
    row = next(row for row in found.per_class() if row.label == "Ulna")
    assert (row.empty_a, row.empty_b, row.only_b) == (0, 3, 0)


# --- the page


@pytest.fixture(scope="module")
def written(tmp_path_factory, samples):
    folder = tmp_path_factory.mktemp("page")
    a = write_store(folder / "a<b>", samples, without=("shaft",))
    b = write_csv(folder / "b.csv", samples, shift_px=4)
    two = comparing.SourcePair.open((a, b), DataSetTruth(samples, {}), LABELS)
    found = comparing.count_differences(two, samples, quiet)
    chosen = limit_per_class(found.differing(), 4, 1)
    compare_page.write_comparison(
        folder / "compare.html",
        found=found,
        drawn=list(comparing.drawn(two, chosen, samples)),
        facts=[("A", "a<b>")],
    )
    return folder, found, (folder / "compare.html").read_text(encoding="utf-8")


def test_page_needs_nothing_else(written):
    folder, _, page = written
    words = re.sub(r"base64,[\w+/=]*", "base64,", page)
    assert not re.search(r"//|@import|<link|<script|url\(|file:", words)
    assert str(folder) not in page
    assert "<b>" not in page.split("<main>")[0].replace("a&lt;b&gt;", "")


def test_page_has_every_class_and_picture(written):
    _, found, page = written
    assert page.count("<img ") == 3 * len(NAMES)
    assert all(f'<th scope="row">{name}</th>' in page for name in found.labels.names)
    assert "A draws nothing" in page


def test_outlines_have_the_colours_of_a_and_b():
    view = drawing.View((0, 0, SIZE[1], SIZE[0]), SIZE)
    a, b = crop(SHAPES["disk"]), crop(SHAPES["hole"])
    black = np.zeros((*SIZE, 3), np.float32)
    drawn = compare_pictures.draw_outlines(black, a, b, None, view)
    inner = cv2.erode(SHAPES["disk"], np.ones((7, 7), np.uint8)) > 0
    assert not drawn[inner].any()
    for mask, color in ((a, colors.ONLY_A), (b, colors.ONLY_B)):
        y, x = np.argwhere(mask.full(SIZE))[0]
        assert np.allclose(drawn[y, x], np.array(color) / 255, atol=0.02)


def test_agreement_tells_three_places_apart():
    view = drawing.View((0, 0, SIZE[1], SIZE[0]), SIZE)
    a, b = SHAPES["disk"], np.roll(SHAPES["disk"], 9, axis=1)
    black = np.zeros((*SIZE, 3), np.float32)
    drawn = compare_pictures.draw_agreement(black, crop(a), crop(b), view)
    places = {"both": (a & b) > 0, "a": (a > b), "b": (b > a), "none": (a | b) == 0}
    colors = {name: drawn[where] for name, where in places.items()}
    assert all(np.ptp(found, axis=0).max() < 1e-6 for found in colors.values())
    assert len({tuple(found[0].tolist()) for found in colors.values()}) == 4


@pytest.mark.parametrize("shift_px", [0, 5])
def test_a_view_holds_what_differs(shift_px):
    a = crop(SHAPES["disk"])
    b = CropMask(a.x + shift_px, a.y, a.pixels)
    pair = pair_masks("k", "x", a, b)
    x, y, wide, high = compare_pictures.view_of_difference(pair.box_xywh, a, b, SIZE).box_xywh
    left, top, across, down = pair.box_xywh if shift_px else a.box_xywh
    assert x <= left <= left + across <= x + wide
    assert y <= top <= top + down <= y + high


@pytest.mark.parametrize(
    ("mean", "interval", "sure"),
    [(0.01, (0.002, 0.02), True), (0.01, (-0.01, 0.02), False), (-0.5, None, False)],
)
def test_marks_stay_on_their_axis(mean, interval, sure):
    found = intervals.mark(intervals.Estimate(mean, interval), 0.02)
    assert found.sure == sure
    assert 0 <= found.low <= found.mean <= found.high <= intervals.MARK_WH[0]


# --- the command


@pytest.fixture(scope="module")
def hands(write_hands):
    return write_hands(1, a=0, b=2)


@pytest.mark.slow
def test_the_command_writes_page_and_record(zoo, hands, capsys):
    a, b, out = hands / "a.csv", hands / "b.csv", hands / "page"
    for _ in range(2):
        zoo("compare", a, b, "--out", out, "--data", hands / "data", "--json", hands / "c.json")
    assert {p.name for p in out.iterdir()} == {"compare.html", "compare.json", "provenance.json"}
    record = json.loads((hands / "c.json").read_text(encoding="utf-8"))
    assert record["truth"]["dice_a"] == 1
    assert record["images"] == 2
    said = capsys.readouterr().out
    assert "A - B: a - b\n" in said
    # The head, the column, all classes, and shared pixels twice.
    assert said.count("A - B") == 2 * 5
    assert "shared pixels: A 1.0000, B 0." in said
    assert record["truth"]["shared"]["a"] == record["truth"]["shared_pooled"]["a"] == 1
    assert record["truth"]["shared_pooled"]["a_minus_b"]["mean"] > 0
    assert "Pisiform" in record["truth"]["overlapping"]
    page = (out / "compare.html").read_text(encoding="utf-8")
    assert "Where classes overlap: shared pixels: A 1.0000" in page
    assert "Shared pixels: of " in page
    assert "B - A" not in said
    assert record["truth"]["a_minus_b"]["overall"]["mean"] > 0
    # Not every terminal has a real minus.
    assert said.isascii()


@pytest.mark.slow
def test_objects_are_compared_as_evaluate_does(zoo, cells, tmp_path, capsys):
    a, b, data = cells / "apart", cells / "plain", ("--data", cells / "data")
    zoo("compare", a, b, *data, "--out", tmp_path / "page")
    said = capsys.readouterr().out
    zoo("evaluate", a, *data, "--against", b, "--json", tmp_path / "scores.json")
    record = json.loads((tmp_path / "page" / "compare.json").read_text(encoding="utf-8"))
    scores = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    found = record["truth"]["objects"]["cell"]
    assert found["a"] == scores["objects"]["cell"]
    assert found["a_minus_b"] == scores["against"]["objects"]["cell"]
    assert found["a_minus_b"]["rq"]["mean"] > 0.3
    # What is one object to B differs, though no pixel does; the worst image comes first.
    images = [row["key"].rpartition("/")[2] for row in record["per_image"]]
    assert images[0] == "row_1"
    assert record["per_image"][0] | {"pq": 0.0, "dice": 1.0} == record["per_image"][0]
    assert record["per_image"][0]["truth_pq"] == [1.0, 0.0]
    (line,) = (line for line in said.splitlines() if line.startswith("  cell, PQ"))
    assert f"{found['a']['pq']['mean']:.4f}" in line
    page = (tmp_path / "page" / "compare.html").read_text(encoding="utf-8")
    assert "their objects, one by one, are not" in page
    assert page.count(">DSB 2018<") == 1
    assert f"PQ A {found['a']['pq']['mean']:.4f}" in page


def test_without_several_objects_there_is_nothing_about_them(tmp_path, samples):
    a, b = write_store(tmp_path / "a", samples), write_store(tmp_path / "b", samples, shift_px=2)
    found = count((a, b), samples)
    assert (found.against_truth.objects, found.objects_pq) == ({}, {})
    assert "\nobjects" not in comparing.describe(found, tmp_path)


@pytest.mark.slow
def test_the_command_needs_no_data(zoo, hands):
    zoo("compare", hands / "a.csv", hands / "b.csv", "--out", hands / "blind")
    page = (hands / "blind" / "compare.html").read_text(encoding="utf-8")
    assert "<img" not in page
    assert "give --data" in page


@pytest.mark.parametrize("bad", ["missing.csv", "data"])
def test_bad_input_is_one_line(zoo, hands, capsys, bad):
    zoo("compare", hands / "a.csv", hands / bad, "--out", hands / "never", code=2)
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (hands / "never").exists()
    assert not (hands / "never.partial").exists()
