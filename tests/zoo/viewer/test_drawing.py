import time
import zlib

import cv2
import numpy as np
import pytest
from shapely.geometry import MultiPolygon, Polygon, box

from converters.files.images import read_pixels
from converters.masks import CropMask, crop, rasterize
from converters.types import Instance, LabelSpace, Sample
from zoo.viewer.collection import Collection
from zoo.viewer.desk import Desk
from zoo.viewer.drawing import draw_image, encode_image, legend, polygon_paths, row_runs
from zoo.viewer.words import plain

SIZE = (9, 12)
PLANES = {
    "empty": np.zeros(SIZE, np.uint8),
    "full": np.ones(SIZE, np.uint8),
    "a hole and two parts": np.array(
        [[1, 1, 1, 0, 0, 1], [1, 0, 1, 0, 1, 1], [1, 1, 1, 0, 0, 1]], np.uint8
    ),
    "a pixel at the border": np.pad(np.ones((1, 1), np.uint8), ((8, 0), (11, 0))),
    "noise": (np.random.default_rng(0).random(SIZE) > 0.5).astype(np.uint8),
}


@pytest.mark.parametrize("plane", PLANES.values(), ids=PLANES)
def test_runs_are_the_pixels(plane):
    drawn = np.zeros_like(plane)
    for x, y, length in row_runs(crop(plane)):
        assert not drawn[y, x : x + length].any()
        drawn[y, x : x + length] = 1
    assert (drawn == plane).all()


def test_polygons_are_numbered_as_corrections_count_them():
    hole = Polygon(box(0, 0, 9, 9).exterior, [box(3, 3, 6, 6).exterior])
    found = polygon_paths(
        [
            Instance("a", MultiPolygon([hole, box(20, 0, 22, 2)])),
            Instance("b", box(1, 1, 2, 2)),
            Instance("a", box(30, 0, 31, 1)),
        ]
    )
    assert [(o["label"], o["part"]) for o in found] == [("a", 0), ("a", 1), ("b", 0), ("a", 2)]
    assert [o["area"] for o in found] == [72, 4, 1, 1]
    assert found[0]["d"].count("M") == 2
    assert found[1]["d"] == "M22.5 0.5 22.5 2.5 20.5 2.5 20.5 0.5z"


def unpack(drawn):
    content = zlib.decompress(drawn["data"])

    def values(place, kind):
        return np.frombuffer(content, kind, place[1], place[0])

    return values


def test_the_canvas_is_given_the_masks_and_what_sources_say(show, tmp_path):
    opened = Collection.open(show.paths, tmp_path / "edits.yaml")
    key = next(iter(show.samples))
    shown = opened.show(key)
    drawn = draw_image(opened, shown)
    values = unpack(drawn)
    assert [layer["name"] for layer in drawn["layers"]] == ["truth", "a", "b", "c"]
    assert (drawn["height"], drawn["width"]) == shown.size_hw
    for layer in drawn["layers"]:
        masks = shown.truth if layer["name"] == "truth" else shown.masks[layer["name"]]
        for name, one in layer["classes"].items():
            runs = values(one["runs"], "<i4").reshape(-1, 3)
            assert one["area"] == masks[name].area == runs[:, 2].sum()
            points = values(one["line"], "<i4").reshape(-1, 2)
            assert sum(one["rings"]) == len(points)
            # Outlines run over the mask's own pixels, or around its holes.
            assert masks[name].full(shown.size_hw)[points[:, 1], points[:, 0]].all()
            if layer["name"] == "truth":
                assert "soft" not in one
                assert "dice" not in one
                continue
            soft = shown.predictions[layer["name"]].evidence(name, opened.labels.once)[1]
            raster = values(one["soft"]["prob"], "u1")
            assert (raster.reshape(one["soft"]["rows"], -1) == soft.prob).all()
            assert tuple(one["soft"]["box"]) == soft.box_xywh
    last = show.labels.names[-1]
    assert last not in drawn["layers"][3]["classes"]


def test_some_layers_are_held_against_another_one(show, tmp_path):
    opened = Collection.open(show.paths, tmp_path / "edits.yaml")
    shown = opened.show(next(iter(show.samples)))
    drawn = draw_image(opened, shown, ["b", "a"], against="b")
    assert [layer["name"] for layer in drawn["layers"]] == ["b", "a"]
    assert drawn["against"] == "b"
    assert all("dice" in one for one in drawn["layers"][1]["classes"].values())
    assert draw_image(opened, shown, ["a"], against="b")["against"] == ""


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
def test_the_image_comes_at_its_own_resolution(tmp_path, suffix):
    pixels = np.random.default_rng(0).integers(0, 255, (30, 50), np.uint8)
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), pixels)
    sample = Sample("a", path, (30, 50))
    media, content = encode_image(sample)
    assert media == {".jpg": "image/jpeg", ".bmp": "image/bmp"}.get(suffix, "image/png")
    shown = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert (shown == read_pixels(sample)).all()


def test_grey_of_16_bits_is_shown_as_everywhere(tmp_path):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.arange(1500, dtype=np.uint16).reshape(30, 50) * 20)
    sample = Sample("a", path, (30, 50))
    shown = cv2.imdecode(np.frombuffer(encode_image(sample)[1], np.uint8), cv2.IMREAD_UNCHANGED)
    assert (shown == read_pixels(sample)).all()


def test_an_image_that_is_not_there_is_said_on_the_canvas(show, tmp_path):
    opened = Collection.open(show.paths[:1], tmp_path / "edits.yaml")
    key = next(iter(show.samples))
    opened.samples[key].image.rename(tmp_path / "away.png")
    try:
        drawn = draw_image(opened, opened.show(key))
    finally:
        (tmp_path / "away.png").rename(opened.samples[key].image)
    assert "expected an image" in drawn["problem"]
    assert drawn["layers"]


def test_every_class_has_a_colour_and_its_group(show):
    found = legend(show.labels, show.labels.names)
    assert [one["name"] for one in found["classes"]] == list(show.labels.names)
    assert [one["group"] for one in found["classes"]] == ["large", *["small"] * 8]
    assert len({one["color"] for one in found["classes"]}) == 9


def test_a_drawing_is_kept_until_a_correction_changes_it(show, tmp_path):
    desk = Desk(Collection.open(show.paths, tmp_path / "edits.yaml"))
    key, other, *_ = show.samples
    first = desk.draw(key)
    assert desk.draw(key) is first
    assert desk.draw(other)["token"] != first["token"]
    desk.collection.edit("drop", {"key": key, "label": show.labels.names[1]})
    second = desk.draw(key)
    assert second["token"] != first["token"]
    assert show.labels.names[1] not in second["layers"][0]["classes"]
    # Objects are numbered as they were read, which corrections speak of.
    assert second["objects"] == first["objects"]


@pytest.mark.parametrize("text", ["a_b_c", "<i>", "$x$ :red[a]", "[a](javascript:b)", "a\\b`c`"])
def test_names_are_no_mark_up(text):
    shown = plain(text)
    assert "".join(c for i, c in enumerate(shown) if not _escapes(shown, i)) == text
    assert all(_escapes(shown, i - 1) for i, c in enumerate(shown) if c in "_<>$:[]()`")


def _escapes(text, i):
    """Whether the character is a backslash that an even number of them precedes."""
    if i < 0 or text[i] != "\\":
        return False
    before = len(text[:i]) - len(text[:i].rstrip("\\"))
    return before % 2 == 0


@pytest.mark.slow
def test_a_large_image_of_many_structures_is_drawn_fast(show, tmp_path):
    side, count = 2048, 29
    labels = LabelSpace("many", tuple(f"bone-{i}" for i in range(count)), once=True)
    generator = np.random.default_rng(0)
    path = tmp_path / "data" / "a.png"
    path.parent.mkdir()
    noise = generator.integers(0, 60, (side, side), np.uint8)
    cv2.imwrite(str(path), noise)
    instances = []
    for i, name in enumerate(labels.names):
        angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
        radius = 150 * (1 + 0.1 * np.sin(7 * angle))
        x, y = 200 + 280 * (i % 6), 220 + 380 * (i // 6)
        ring = np.stack([x + radius * np.cos(angle), y + 1.6 * radius * np.sin(angle)], axis=1)
        instances.append(Instance(name, Polygon(ring)))
    sample = Sample("a", path, (side, side), instances)
    from zoo.viewer.sources import open_each

    for name in ("p", "q", "r"):
        show.write_store(tmp_path / name, [sample], labels, 1, grid=512)
    sources = open_each([tmp_path / n for n in ("p", "q", "r")], None, labels)
    opened = Collection(labels, {"a": sample}, sources, tmp_path / "edits.yaml")
    draw_image(opened, opened.show("a"))
    times = []
    for _ in range(3):
        for source in sources:
            source._kept.clear()
        start = time.thread_time()
        draw_image(opened, opened.show("a"))
        times.append(time.thread_time() - start)
    start = time.thread_time()
    np.ones((29, side, side), np.float32).mean(axis=0)
    # Of one source alone; here are three, and the truth.
    dense = time.thread_time() - start
    assert min(times) < 3 * dense


def test_a_class_that_a_source_draws_nothing_of_is_missed_as_a_whole(show, tmp_path):
    opened = Collection.open(show.paths, tmp_path / "edits.yaml")
    key = next(iter(show.samples))
    shown = opened.show(key)
    name = show.labels.names[1]
    masks = {**shown.masks, "a": {**shown.masks["a"], name: CropMask(0, 0, np.zeros((0, 0), "u1"))}}
    from dataclasses import replace

    drawn = draw_image(opened, replace(shown, masks=masks))
    one = drawn["layers"][1]["classes"][name]
    assert (one["area"], one["dice"], one["runs"][1], one["rings"]) == (0, 0.0, 0, [])
    whole = rasterize(box(0, 0, 3, 3), SIZE)
    assert len(row_runs(whole)) == 4
