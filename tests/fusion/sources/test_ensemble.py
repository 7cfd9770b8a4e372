"""Stores and submissions as sources: joined by name, read in parts, refused where they differ."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from converters.types import LabelSpace
from fusion import Mean, Vote
from fusion.rules.refine import confidence, drop_uncertain
from fusion.sources import submission
from fusion.sources.ensemble import Ensemble, Submission, SubmissionIndex
from fusion.sources.manifest import Manifest
from fusion.sources.store import StoreWriter
from fusion.sources.submission import RleRow
from fusion.types import Prediction, SoftMask

# Non-square, of different sizes; a stem with `_`, one in a deeper folder.
IMAGES = {
    "test/ID001/image_1_R": (30, 47, "image_1_R.png"),
    "test/ID002/image2": (41, 23, "image2.png"),
    "test/ID002/image3_L": (30, 30, "image3_L.png"),
}
NAMES = ("finger-1", "Lunate", "Ulna", "Radius")


@pytest.fixture
def space(tmp_path):
    """A label space that is read from a file, as a store's is."""
    path = tmp_path / "bones.yaml"
    LabelSpace("bones", NAMES).save(path)
    return path


def planes(seed, size_hw):
    """A ring, two parts, a bone at the border that overlaps them, and one that is missing."""
    rng = np.random.default_rng(seed)
    found = {name: np.zeros(size_hw, np.uint8) for name in NAMES}
    y, x = rng.integers(2, 6, 2)
    found["finger-1"][y : y + 9, x : x + 11] = 255
    found["finger-1"][y + 3 : y + 5, x + 3 : x + 6] = 0
    found["Lunate"][y + 8 : y + 13, :4] = found["Lunate"][-7:-4, -5:] = 255
    found["Ulna"][-9:, x : x + 9] = 255
    return found


def predictions(seed, images=IMAGES, level=255):
    for number, (key, (height, width, _)) in enumerate(images.items()):
        drawn = planes((seed, number), (height, width))
        masks = {
            name: ((1.0, SoftMask((0, 0, width, height), np.minimum(plane, level))),)
            for name, plane in drawn.items()
            if plane.any()
        }
        yield Prediction(key, (height, width), "semantic", masks)


def write_store(path, space, seed, images=IMAGES, **changes):
    manifest = Manifest("semantic", str(space), NAMES, images, images_per_part=2)
    with StoreWriter(path, replace(manifest, **changes)) as writer:
        for prediction in predictions(seed, images):
            writer.append(prediction)
    return path


def coded(seed, images=IMAGES, names=NAMES):
    return [
        row
        for prediction in predictions(seed, images)
        for row in submission.encode(prediction, images[prediction.key][2], names)
    ]


def write_csv(path, rows):
    submission.write(path, rows)
    return path


@pytest.fixture
def sources(tmp_path, space):
    """A store and two submissions, one in another order and without two of the classes."""
    few = [row for row in coded(2) if row.label in ("Lunate", "Ulna")]
    return [
        write_csv(tmp_path / "b.csv", coded(1)),
        write_store(tmp_path / "a", space, 0),
        write_csv(tmp_path / "few.csv", few[::-1]),
    ]


def assert_same_masks(found, expected):
    assert (found.key, found.size_hw) == (expected.key, expected.size_hw)
    for name in NAMES:
        masks = (p.binary(name).full(p.size_hw) for p in (found, expected))
        assert np.array_equal(*masks), name


def test_sources_are_joined_by_name_not_by_position(sources):
    ensemble = Ensemble.open(sources)
    assert [source.name for source in ensemble.sources] == ["b", "a", "few"]
    assert ensemble.images == IMAGES
    assert (ensemble.labels.names, ensemble.sizes_known) == (NAMES, True)
    for heard, *expected in zip(
        ensemble, predictions(1), predictions(0), predictions(2), strict=True
    ):
        assert_same_masks(heard[0], expected[0])
        assert_same_masks(heard[1], expected[1])
        few = {name: found for name, found in expected[2].masks.items() if name != "finger-1"}
        assert_same_masks(heard[2], replace(expected[2], masks=few))


def test_a_file_without_a_class_does_not_speak_of_it(sources):
    for _, _, few in Ensemble.open(sources):
        assert [few.speaks_of(name) for name in NAMES] == [False, True, True, False]


def test_a_class_with_empty_codes_is_spoken_of(sources):
    for full, _, _ in Ensemble.open(sources):
        assert full.speaks_of("Radius")
        assert full.best("Radius") is None


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (1, 3), (2, 9), (3, 5), (0, 3)])
def test_a_part_is_read_elsewhere_without_the_rest(sources, start, stop):
    ensemble = Ensemble.open(sources)
    parts = pickle.loads(pickle.dumps(ensemble.part(start, stop)))
    expected = list(ensemble)[start:stop]
    for heard, whole in zip(zip(*parts, strict=True), expected, strict=True):
        for one, other in zip(heard, whole, strict=True):
            assert_same_masks(one, other)


def test_an_order_of_names_is_followed(sources):
    ensemble = Ensemble.open(sources).ordered(("few", "a", "b"))
    assert [source.name for source in ensemble.sources] == ["few", "a", "b"]
    with pytest.raises(ValueError, match="expects the sources a, b; given are b, a, few"):
        Ensemble.open(sources).ordered(("a", "b"))


@pytest.mark.parametrize("seed", range(3))
def test_soft_masks_of_a_file_are_whole_or_nothing(tmp_path, seed):
    path = write_csv(tmp_path / "a.csv", coded(seed))
    for (heard,), expected in zip(Ensemble.open([path], IMAGES), predictions(seed), strict=True):
        for name, ((score, mask),) in heard.masks.items():
            full = mask.render((0, 0, heard.size_hw[1], heard.size_hw[0]))
            assert score == 1.0
            assert np.array_equal(full, expected.masks[name][0][1].prob)


# --- submissions alone


@pytest.mark.slow
@pytest.mark.parametrize("rule", [Vote(), Mean()])
@pytest.mark.parametrize("width", [7, 23, 2047, 2048, 2049, 3060])
def test_codes_fuse_alike_whatever_the_row_length(tmp_path, width, rule):
    """The proof that submissions alone need no sizes: the true one gives the same codes."""
    images = {key: (60, width, entry[2]) for key, entry in IMAGES.items()}
    rng, paths = np.random.default_rng(width), []
    for number in range(3):
        rows = []
        for _, _, name in images.values():
            for label in NAMES:
                marks = np.unique(rng.integers(1, 60 * width, 2 * int(rng.integers(0, 40))))
                pairs = marks[: len(marks) // 2 * 2].reshape(-1, 2)
                code = " ".join(f"{a} {b - a}" for a, b in pairs)
                rows.append(RleRow(name, label, code))
        # The last pixel of the last image: a bone at the border.
        rows[-1] = rows[-1]._replace(rle=f"{60 * width - 5} 6")
        paths.append(write_csv(tmp_path / f"{number}.csv", rows))
    blind, informed = Ensemble.open(paths), Ensemble.open(paths, images)
    assert (blind.sizes_known, informed.sizes_known) == (False, True)
    assert [source.name for source in blind.sources] == ["0", "1", "2"]
    found = []
    for ensemble in (blind, informed):
        fused = [rule(heard, ensemble.labels) for heard in ensemble]
        files = [entry[2] for entry in ensemble.images.values()]
        found.append(
            [
                row
                for p, name in zip(fused, files, strict=True)
                for row in submission.encode(p, name, NAMES)
            ]
        )
    assert found[0] == found[1]
    assert any(row.rle for row in found[0])


def test_submissions_alone_follow_the_first_one(tmp_path):
    first = write_csv(tmp_path / "a.csv", coded(0)[::-1])
    ensemble = Ensemble.open([first, write_csv(tmp_path / "b.csv", coded(1))])
    assert list(ensemble.images) == [entry[2] for entry in IMAGES.values()][::-1]
    # The shipped label space that has these classes has their order.
    assert ensemble.labels.name == "hand_bones"
    assert set(ensemble.classes) == set(NAMES)


def test_submissions_of_classes_that_nobody_knows(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("image_name,class,rle\na.png,dog,1 2\na.png,cat,\n")
    assert Ensemble.open([path]).labels == LabelSpace("submission", ("dog", "cat"))


def test_a_data_set_gives_order_and_sizes(tmp_path):
    path = write_csv(tmp_path / "a.csv", coded(0)[::-1])
    more = {"other": (9, 9, "other.png"), **IMAGES}
    assert Ensemble.open([path], more).images == IMAGES


def test_the_usual_classes_are_taken_where_a_file_has_some_of_them(tmp_path, labels):
    usual = LabelSpace("usual", (*NAMES, "Pisiform"))
    rows = [row for row in coded(0) if row.label == "Ulna"]
    ensemble = Ensemble.open([write_csv(tmp_path / "a.csv", rows)], usual=usual)
    assert ensemble.labels == usual
    assert ensemble.classes == ("Ulna",)
    other = [row._replace(label="cup") for row in rows]
    ensemble = Ensemble.open([write_csv(tmp_path / "b.csv", other)], usual=usual)
    assert ensemble.labels.names == ("cup",)


@pytest.mark.slow
def test_the_index_holds_no_codes(tmp_path):
    code = " ".join(f"{i} 1" for i in range(1, 400001, 2))
    rows = [RleRow(entry[2], name, code) for entry in IMAGES.values() for name in NAMES]
    index = SubmissionIndex.read(write_csv(tmp_path / "a.csv", rows))
    assert len(pickle.dumps(index)) < 4000 < len(code)
    part = Submission(index, {k: (700, 700, e[2]) for k, e in IMAGES.items()}).part(0, 1)
    assert len(pickle.dumps(part)) < 4000
    assert next(iter(part)).binary("Ulna").area == 200000


# --- what does not fit


def other_rows(change):
    return lambda folder: write_csv(folder / "bad.csv", change(coded(1)))


def replaced(at, **changes):
    return lambda rows: [r._replace(**changes) if i == at else r for i, r in enumerate(rows)]


BAD_FILES = {
    "foreign image": (
        lambda r: [*r, *(x._replace(image_name="x.png") for x in r[:4])],
        "such as 'image_1_R.png'; found 1 that are not among them, such as 'x.png'",
    ),
    "missing image": (lambda r: r[4:], "bad.csv: 1 of 3 images are missing, such as 'image_1_R"),
    "twice": (lambda r: [*r, r[2]], "bad.csv line 14: 'image_1_R.png' 'Ulna' comes twice"),
    "missing pair": (lambda r: r[:2] + r[3:], "'image_1_R.png' has no row of 'Ulna', as others"),
    "other class": (
        lambda r: [x._replace(label="Talus") if x.label == "Ulna" else x for x in r],
        "bad.csv: expected classes of 'bones', found 'Talus'",
    ),
    "no rows": (lambda r: [], "bad.csv: expected rows, found none"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_of_other_pairs_is_refused_unread(case, tmp_path, sources):
    change, message = BAD_FILES[case]
    with pytest.raises(ValueError, match=message):
        Ensemble.open([sources[1], other_rows(change)(tmp_path)])


BAD_CODES = {
    "overlap": ("4 3 5 2", "sorted runs that do not overlap"),
    "unsorted": ("90 2 4 1", "sorted runs that do not overlap"),
    "odd": ("4 3 5", "pairs"),
    "words": ("a b", "whole numbers"),
    "zero": ("0 2", "at least 1"),
    "far": (f"{2**28} 2", "pixels up to"),
    "farther": ("9" * 25 + " 2", "whole numbers"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", BAD_CODES)
@pytest.mark.parametrize("alone", [True, False])
def test_a_bad_code_is_named_by_its_line(case, alone, tmp_path, sources):
    code, message = BAD_CODES[case]
    bad = other_rows(replaced(4, rle=code))(tmp_path)

    def fuse():
        return [Vote()(heard, LabelSpace("bones", NAMES)) for heard in Ensemble.open(given)]

    given = [bad, sources[0]] if alone else [sources[1], bad]
    with pytest.raises(ValueError, match=message) as caught:
        fuse()
    assert "image2.png" in str(caught.value)


def test_a_code_outside_a_known_image_is_refused(tmp_path, sources):
    bad = other_rows(replaced(4, rle=f"{41 * 23} 2"))(tmp_path)
    with pytest.raises(ValueError, match=r"bad.csv line 6: image2.png finger-1: .*943 \(41 x 23\)"):
        list(Ensemble.open([sources[1], bad]))


def test_a_file_that_changes_meanwhile_is_refused(tmp_path):
    path = write_csv(tmp_path / "a.csv", coded(0))
    ensemble = Ensemble.open([path], IMAGES)
    write_csv(path, coded(0)[::-1])
    with pytest.raises(ValueError, match="changed while it was read"):
        list(ensemble)


def test_names_and_places_have_to_be_clear(tmp_path, space, sources):
    with pytest.raises(ValueError, match="found none"):
        Ensemble.open([])
    with pytest.raises(ValueError, match=r"x\.csv: expected a prediction store or a submission"):
        Ensemble.open([tmp_path / "x.csv"])
    (tmp_path / "deeper").mkdir()
    twin = write_csv(tmp_path / "deeper" / "a.csv", coded(1))
    with pytest.raises(ValueError, match=r"'a' is that of .*a and of .*a\.csv: leave one"):
        Ensemble.open([sources[1], twin])


def test_stores_have_to_match(tmp_path, space, sources):
    fewer = dict(list(IMAGES.items())[:2])
    other = write_store(tmp_path / "c", space, 3, fewer)
    with pytest.raises(ValueError, match="1 images differ: 'test/ID002/image3_L' is missing"):
        Ensemble.open([sources[1], other])


def test_what_stores_have_in_common_can_be_taken(tmp_path, space, sources):
    kept = list(IMAGES.items())[1:]
    other = write_store(tmp_path / "c", space, 3, dict(kept[::-1]))
    ensemble = Ensemble.open([sources[1], other], common=True)
    assert list(ensemble.images) == [key for key, _ in kept]
    assert [[p.key for p in heard] for heard in ensemble] == [[key, key] for key, _ in kept]
    assert ensemble.left_out == {str(sources[1]): 1}
    alone = write_store(tmp_path / "d", space, 4, {"nobody's": (40, 60, "n.png")})
    with pytest.raises(
        ValueError, match="have, found none: predict the same images by each; or, if"
    ):
        Ensemble.open([sources[1], alone], common=True)


def test_a_crop_s_file_gives_an_image_no_name(tmp_path, space):
    # Of a JPEG it is a PNG.
    crops = {key: (*entry[:2], "crop.png") for key, entry in IMAGES.items()}
    domains = dict.fromkeys(IMAGES, (1, 1, 20, 20))
    first = write_store(tmp_path / "a", space, 0, crops, domains=domains)
    whole = write_store(tmp_path / "b", space, 1)
    assert Ensemble.open([first, whole]).images == IMAGES
    assert Ensemble.open([first]).images == crops


def test_two_images_of_one_name_cannot_be_told_apart(tmp_path, space, sources):
    same = {key: (*entry[:2], "image.png") for key, entry in IMAGES.items()}
    store = write_store(tmp_path / "same", space, 0, same)
    with pytest.raises(ValueError, match=r"are both named image\.png"):
        Ensemble.open([store, sources[0]])


def test_a_store_s_classes_win(sources):
    with pytest.raises(ValueError, match="its classes are not those of 'other'"):
        Ensemble.open(sources, labels=LabelSpace("other", ("x",)))


# --- certainty


def test_certainty_is_the_mean_probability_inside_the_mask(predict):
    plane = np.zeros((90, 130), np.uint8)
    plane[5:9, 4:9], plane[9:12, 4:9], plane[20, 20] = 255, 153, 100
    seen = predict({"Ulna": plane, "3": np.minimum(plane, 127)})
    inside = plane[plane >= 128]
    assert confidence(seen, "Ulna") == pytest.approx(inside.mean() / 255)
    assert confidence(seen, "3") == confidence(seen, "finger-1") == 0


def test_uncertain_objects_are_left_out_and_named(predict):
    sure, unsure, none = (np.full((90, 130), v, np.uint8) for v in (230, 140, 90))
    seen = predict({"Ulna": sure, "3": unsure, "finger-1": none})
    kept, dropped = drop_uncertain(seen, 0.6)
    assert (list(kept.masks), dropped) == (["Ulna"], ("3",))
