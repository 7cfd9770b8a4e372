"""The prediction store: written once, whole, in order; read part by part."""

import json
import pickle
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from converters.types import LabelSpace
from fusion.sources import store
from fusion.sources.ensemble import Ensemble
from fusion.sources.manifest import Manifest
from fusion.sources.store import PredictionStore, StoreWriter, check_match, read_together
from fusion.types import Prediction, SoftMask

KEYS = [f"ID{i:03d}/image_{9 - i}_R" for i in range(7)]


def manifest_of(labels, **changes):
    images = {key: (40 + i, 60, f"{key[6:]}.png") for i, key in enumerate(KEYS)}
    return replace(
        Manifest("instance", labels.name, labels.names, images, {"run": "a"}, images_per_part=2),
        **changes,
    )


def predictions_of(labels):
    """Several detections of a class, one detection, none at all; rasters of many sizes."""
    found = []
    for i, key in enumerate(KEYS):
        rng = np.random.default_rng(i)
        masks = {}
        for label in labels.names[: i % 4]:
            rasters = [rng.integers(0, 256, (2 + j, 3 + i), np.uint8) for j in range(1 + i % 3)]
            box = (-1.5, i / 3, 20.25, 30.0)
            scores = sorted(rng.random(len(rasters)), reverse=True)
            masks[label] = tuple(
                (score, SoftMask(box, raster))
                for score, raster in zip(scores, rasters, strict=True)
            )
        found.append(Prediction(key, (40 + i, 60), "instance", masks))
    return found


def write(out, manifest, predictions):
    with StoreWriter(out, manifest) as writer:
        for prediction in predictions:
            writer.append(prediction)
    return PredictionStore(out)


@pytest.fixture
def predictions(labels):
    return predictions_of(labels)


@pytest.fixture
def written(tmp_path, labels, predictions):
    return write(tmp_path / "model_a", manifest_of(labels), predictions)


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def assert_equal(found, expected):
    assert (found.key, found.size_hw, found.kind) == (expected.key, expected.size_hw, expected.kind)
    rows = list(found.rows()), list(expected.rows())
    assert [row[:2] for row in rows[0]] == [row[:2] for row in rows[1]]
    for (_, _, score, mask), (_, _, true_score, true_mask) in zip(*rows, strict=True):
        assert score == pytest.approx(true_score, abs=1e-7)
        assert mask.box_xywh == true_mask.box_xywh
        assert np.array_equal(mask.prob, true_mask.prob)


def test_what_is_written_is_read_in_order(written, predictions, labels):
    assert written.name == "model_a"
    assert written.manifest == manifest_of(labels)
    for found, expected in zip(written, predictions, strict=True):
        assert_equal(found, expected)
    # A second pass sees the same.
    assert [p.key for p in written] == KEYS


COUNTS_THREADS = """
import os, sys
from fusion.sources.store import PredictionStore
before = len(os.listdir("/proc/self/task"))
print(len(list(PredictionStore(sys.argv[1]))), len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_no_thread_is_left_that_may_abort_a_command_at_its_end(written):
    command = [sys.executable, "-c", COUNTS_THREADS, str(written.path)]
    said = subprocess.run(command, check=True, capture_output=True, text=True)
    assert said.stdout.split() == [str(len(KEYS)), "0"]


@pytest.mark.parametrize("step", [1, 2, 3, 7, 16])
def test_parts_of_any_size_read_the_same(tmp_path, labels, predictions, step):
    found = write(tmp_path / "a", manifest_of(labels, images_per_part=step), predictions)
    assert len(list((tmp_path / "a").glob("*.parquet"))) == -(-7 // step)
    for one, expected in zip(found, predictions, strict=True):
        assert_equal(one, expected)


def test_a_store_without_any_detection(tmp_path, labels, predictions):
    nothing = [replace(p, masks={}) for p in predictions]
    found = write(tmp_path / "a", manifest_of(labels), nothing)
    assert [(p.key, dict(p.masks)) for p in found] == [(key, {}) for key in KEYS]


def test_a_store_without_images(tmp_path, labels):
    assert list(write(tmp_path / "a", manifest_of(labels, images={}), [])) == []


@pytest.mark.parametrize("stop_after", range(8))
def test_a_killed_writer_continues(tmp_path, labels, predictions, written, stop_after):
    killed = StoreWriter(tmp_path / "b", manifest_of(labels))
    for prediction in predictions[:stop_after]:
        killed.append(prediction)
    (killed.folder / "part-00003.tmp").write_bytes(b"half")
    del killed
    assert not (tmp_path / "b").exists()
    with StoreWriter(tmp_path / "b", manifest_of(labels)) as writer:
        # Whole parts of two images are kept, and the last part of one.
        assert len(writer.remaining) == (0 if stop_after == 7 else 7 - stop_after // 2 * 2)
        for prediction in predictions[7 - len(writer.remaining) :]:
            writer.append(prediction)
    assert content(tmp_path / "b") == content(written.path)
    assert not (tmp_path / "b.partial").exists()


def test_a_writer_fills_a_gap_among_its_parts(tmp_path, labels, predictions, written):
    killed = StoreWriter(tmp_path / "b", manifest_of(labels))
    for prediction in predictions[:6]:
        killed.append(prediction)
    (killed.folder / "part-00001.parquet").unlink()
    del killed
    with StoreWriter(tmp_path / "b", manifest_of(labels)) as writer:
        assert list(writer.remaining) == KEYS[2:]
        for prediction in predictions[2:]:
            writer.append(prediction)
    assert content(tmp_path / "b") == content(written.path)


CHANGES = [{"source": {"run": "b"}}, {"images_per_part": 3}, {"fold": 1}, {"subset": "test"}]


@pytest.mark.parametrize("change", CHANGES)
def test_an_unfinished_store_of_another_run_is_discarded(tmp_path, labels, predictions, change):
    killed = StoreWriter(tmp_path / "b", manifest_of(labels))
    for prediction in predictions[:4]:
        killed.append(prediction)
    del killed
    writer = StoreWriter(tmp_path / "b", manifest_of(labels, **change))
    assert list(writer.remaining) == KEYS
    assert list(writer.folder.glob("*.parquet")) == []


def test_an_error_leaves_the_finished_part_and_no_store(tmp_path, labels, predictions):
    def killed():
        yield from predictions[:3]
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        write(tmp_path / "b", manifest_of(labels), killed())
    assert not (tmp_path / "b").exists()
    assert len(StoreWriter(tmp_path / "b", manifest_of(labels)).remaining) == 5


def test_leaving_before_the_end_is_an_error(tmp_path, labels, predictions):
    writer = StoreWriter(tmp_path / "b", manifest_of(labels))
    writer.append(predictions[0])
    with pytest.raises(ValueError, match="6 images were not predicted"):
        writer.__exit__(None)


def test_a_second_run_replaces_the_store(written, labels, predictions):
    nothing = [replace(p, masks={}) for p in predictions]
    found = write(written.path, manifest_of(labels, images_per_part=7), nothing)
    assert not any(p.masks for p in found)
    assert set(content(written.path)) == {"manifest.json", "part-00000.parquet", "SHA256SUMS"}


@pytest.mark.parametrize("name", ["photos", "photos.partial"])
def test_a_folder_of_other_things_is_not_replaced(tmp_path, labels, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "holiday.jpg").write_bytes(b"1")
    with pytest.raises(ValueError, match=rf"/{name}: expected .*prediction store to "):
        StoreWriter(tmp_path / "photos", manifest_of(labels))
    assert (tmp_path / name / "holiday.jpg").exists()


def test_a_store_that_is_named_like_an_unfinished_one_is_kept(tmp_path, labels, predictions):
    mine = write(tmp_path / "b.partial", manifest_of(labels, fold=3), predictions)
    before = content(mine.path)
    with pytest.raises(ValueError, match=r"b\.partial: expected a prediction store to continue"):
        write(tmp_path / "b", manifest_of(labels), predictions)
    assert content(mine.path) == before


def test_a_store_in_use_is_refused(tmp_path, labels, predictions):
    first = StoreWriter(tmp_path / "b", manifest_of(labels))
    for prediction in predictions[:4]:
        first.append(prediction)
    with pytest.raises(ValueError, match=r"b\.partial: another command is writing there"):
        StoreWriter(tmp_path / "b", manifest_of(labels, fold=3))
    with first as writer:
        for prediction in predictions[4:]:
            writer.append(prediction)
    assert len(list(PredictionStore(tmp_path / "b"))) == len(KEYS)


def test_what_came_in_the_meantime_is_not_replaced(tmp_path, labels, predictions):
    writer = StoreWriter(tmp_path / "b", manifest_of(labels))
    for prediction in predictions:
        writer.append(prediction)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "holiday.jpg").write_bytes(b"1")
    with pytest.raises(ValueError, match="b: expected nothing there, or a prediction store"):
        writer.__exit__(None)
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["holiday.jpg"]
    (tmp_path / "b" / "holiday.jpg").unlink()
    assert len(StoreWriter(tmp_path / "b", manifest_of(labels)).remaining) == 0


def test_a_file_is_not_replaced(tmp_path, labels):
    (tmp_path / "a.csv").write_text("1")
    with pytest.raises(ValueError, match="or a prediction store to replace"):
        StoreWriter(tmp_path / "a.csv", manifest_of(labels))


WRONG_NEXT = [
    (lambda p: replace(p[1]), f"expected {KEYS[0]}, found {KEYS[1]}"),
    (lambda p: replace(p[0], kind="semantic"), "expected instance predictions"),
    (lambda p: replace(p[0], masks={"Talus": ()}), r"expected classes of the store.*Talus"),
]


@pytest.mark.parametrize(("make", "message"), WRONG_NEXT)
def test_a_writer_refuses_what_does_not_come_next(tmp_path, labels, predictions, make, message):
    writer = StoreWriter(tmp_path / "b", manifest_of(labels))
    with pytest.raises(ValueError, match=message):
        writer.append(make(predictions))


def test_a_full_writer_refuses_more(tmp_path, labels, predictions):
    writer = StoreWriter(tmp_path / "b", manifest_of(labels))
    for prediction in predictions:
        writer.append(prediction)
    with pytest.raises(ValueError, match="expected no further image"):
        writer.append(predictions[-1])


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_cut_off_part_is_named(written, keep):
    part = written.path / "part-00002.parquet"
    part.write_bytes(part.read_bytes()[:keep])
    with pytest.raises(
        ValueError, match=r"whole Parquet file, found other bytes than were written"
    ):
        list(PredictionStore(written.path))
    forget_checksums(written.path)
    with pytest.raises(ValueError, match=r"part-00002.parquet: expected a whole Parquet file"):
        list(PredictionStore(written.path))


@pytest.mark.parametrize("number", range(4))
def test_a_missing_part_is_named(written, number):
    (written.path / f"part-{number:05d}.parquet").unlink()
    with pytest.raises(
        ValueError,
        match=rf"expected 4 part files, found 3: part-{number:05d}\.parquet is missing: copy",
    ):
        PredictionStore(written.path)


def test_a_foreign_part_is_named(written):
    (written.path / "part-00009.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match=r"part-00009\.parquet does not belong here"):
        PredictionStore(written.path)


def forget_checksums(folder):
    """Make a store as it was before there were checksums."""
    file = folder / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "version": 1}))
    (folder / "SHA256SUMS").unlink()


def rewrite(part, change):
    forget_checksums(part.parent)
    table = pq.read_table(part)
    pq.write_table(change(table), part)


def column(table, name, values):
    return table.set_column(table.column_names.index(name), name, [values])


BAD_ROWS = [
    (lambda t: column(t, "key", ["x"] * len(t)), "expected images of the manifest, found .'x'."),
    (lambda t: column(t, "label", ["x"] * len(t)), "expected classes of the manifest, found 'x'"),
    (lambda t: column(t, "rows", [1000] * len(t)), "'ID002/image_7_R': expected 1000 x 5 bytes"),
    (lambda t: column(t, "cols", [-1] * len(t)), "expected [0-9]+ x -1 bytes"),
    (lambda t: column(t, "h", [1e300] * len(t)), "expected a box near the image of .*1e.300"),
    (lambda t: column(t, "x", [1e9] * len(t)), "expected a box near the image"),
    (lambda t: column(t, "score", [7.0] * len(t)), "expected sorted scores"),
    (lambda t: t.drop_columns(["prob"]), 'part-00001.parquet: .* "prob" does not exist'),
    (lambda t: column(t, "x", ["left"] * len(t)), "part-00001.parquet: .*parse string: 'left'"),
]


@pytest.mark.parametrize(("change", "message"), BAD_ROWS)
def test_rows_that_do_not_fit_are_named(written, change, message):
    rewrite(written.path / "part-00001.parquet", change)
    with pytest.raises(ValueError, match=message):
        list(PredictionStore(written.path))


def test_parts_in_each_other_s_place_are_found(written):
    forget_checksums(written.path)
    first, second = written.path / "part-00000.parquet", written.path / "part-00001.parquet"
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
    with pytest.raises(ValueError, match="expected images of the manifest"):
        list(PredictionStore(written.path))


BAD_MANIFESTS = [
    ("", "expected a store's manifest"),
    ("[]", "expected a store's manifest"),
    ('"text"', "expected a store's manifest"),
    ('{"version": 99}', "version 2 or older"),
    ('{"version": 1, "images": [], "names": []}', "expected a store's manifest"),
    ('{"version": 1, "images": [["a", 1]], "names": []}', "expected a store's manifest"),
]


@pytest.mark.parametrize(("text", "message"), BAD_MANIFESTS)
def test_bad_manifests_are_refused(tmp_path, text, message):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        PredictionStore(tmp_path)


def test_what_is_no_store_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path, found in [
        (tmp_path, "a folder without manifest.json"),
        (tmp_path / "absent", "nothing there"),
        (tmp_path / "file", "a file"),
    ]:
        with pytest.raises(ValueError, match=f"expected a prediction store, found {found}"):
            PredictionStore(path)


def test_equal_manifests_have_equal_text(labels):
    text = manifest_of(labels).dumps()
    assert text == manifest_of(labels).dumps()
    assert json.loads(text)["images"][0] == [KEYS[0], 40, 60, "image_9_R.png"]


def with_images(manifest, change):
    return replace(manifest, images=change(dict(manifest.images)))


DIFFERENCES = {
    "fewer classes": (lambda m: replace(m, names=m.names[:3]), r"classes \['Ulna'\] differ"),
    "order of classes": (lambda m: replace(m, names=m.names[::-1]), "the order of the classes"),
    "missing image": (
        lambda m: with_images(m, lambda i: {k: i[k] for k in KEYS[1:]}),
        f"1 images differ: '{KEYS[0]}' is missing from .*other",
    ),
    "more images": (
        lambda m: with_images(m, lambda i: {**i, "new": (1, 1, "n")}),
        "1 images differ: 'new' is only in .*other",
    ),
    "size": (
        lambda m: with_images(m, lambda i: {**i, KEYS[2]: (60, 42, "x")}),
        rf"other: '{KEYS[2]}' is \(60, 42\), not \(42, 60\)",
    ),
}


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_stores_that_differ_are_refused(difference, tmp_path, labels, written):
    change, message = DIFFERENCES[difference]
    other = tmp_path / "other"
    manifest = change(manifest_of(labels))
    empty = [Prediction(k, v[:2], "instance", {}) for k, v in manifest.images.items()]
    with pytest.raises(ValueError, match=message):
        check_match([written, write(other, manifest, empty)])


@pytest.mark.parametrize("per_part", [1, 2, 16])
def test_stores_of_another_order_are_joined_by_key(
    per_part, tmp_path, labels, written, predictions
):
    turned = [replace(p, kind="semantic", masks={}) for p in predictions[::-1]]
    manifest = replace(manifest_of(labels, kind="semantic"), images_per_part=per_part)
    manifest = with_images(manifest, lambda i: {k: i[k] for k in KEYS[::-1]})
    other = write(tmp_path / "turned", manifest, turned)
    ensemble = Ensemble.open([written.path, other.path], usual=labels)
    assert list(ensemble.images) == KEYS
    for i, (first, second) in enumerate(ensemble):
        assert_equal(first, predictions[i])
        assert second.key == KEYS[i]
    for start in range(len(KEYS)):
        part = pickle.loads(pickle.dumps(other.in_order(KEYS).part(start, start + 2)))
        assert [p.key for p in part] == list(KEYS[start : start + 2])
    assert other.in_order(KEYS).keys() == tuple(KEYS)
    few = other.in_order(KEYS[1:])
    assert [p.key for p in few] == [p.key for p in few.part(0, 9)] == list(KEYS[1:])
    assert len(few) == len(KEYS) - 1
    with pytest.raises(KeyError):
        few[KEYS[0]]
    for bad in (["new"], [KEYS[0], KEYS[0]]):
        with pytest.raises(ValueError, match="expected an order of its own images"):
            other.in_order(bad)


def test_stores_are_read_image_by_image(tmp_path, labels, written, predictions):
    semantic = [replace(p, kind="semantic", masks={}) for p in predictions]
    other = write(tmp_path / "b", manifest_of(labels, kind="semantic", fold=3), semantic)
    for i, (first, second) in enumerate(read_together([written, other])):
        assert_equal(first, predictions[i])
        assert (second.key, second.kind) == (KEYS[i], "semantic")


def test_reading_takes_one_part_after_the_other(written, monkeypatch):
    opened = []
    read = store._read_table

    def watch(part, digest):
        opened.append(part.name)
        return read(part, digest)

    monkeypatch.setattr(store, "_read_table", watch)
    reading = iter(written)
    assert opened == []
    counts = [len(opened) for _ in reading]
    assert counts == [1, 1, 2, 2, 3, 3, 4]


@pytest.mark.parametrize("stop", [0, 1, 2, 3, 5, 6, 7, 99])
@pytest.mark.parametrize("start", [0, 1, 2, 5, 6])
def test_any_few_images_are_read_without_the_others(written, predictions, start, stop):
    part = pickle.loads(pickle.dumps(written.part(start, stop)))
    expected = predictions[start:stop]
    assert len(part.files) == (len({KEYS.index(p.key) // 2 for p in expected}))
    for found, true in zip(part, expected, strict=True):
        assert_equal(found, true)


def test_a_store_that_was_written_again_has_another_digest(written, predictions, labels):
    before = written.digest
    assert PredictionStore(written.path).digest == before
    changed = [predictions[0], *(replace(p, masks={}) for p in predictions[1:])]
    assert write(written.path, manifest_of(labels), changed).digest != before


def fail_after(predictions, out, manifest):
    with StoreWriter(out, manifest) as writer:
        for prediction in predictions:
            writer.append(prediction)
        raise RuntimeError("no such option")


def test_a_writer_that_fails_before_its_first_part_leaves_nothing(tmp_path, labels, predictions):
    with pytest.raises(RuntimeError, match="no such option"):
        fail_after(predictions[:1], tmp_path / "b", manifest_of(labels))
    assert list(tmp_path.glob("b*")) == []


def test_a_writer_that_fails_later_keeps_its_parts(tmp_path, labels, predictions):
    with pytest.raises(RuntimeError, match="no such option"):
        fail_after(predictions[:3], tmp_path / "b", manifest_of(labels))
    assert len(StoreWriter(tmp_path / "b", manifest_of(labels)).remaining) == 5


def test_what_a_source_speaks_of_comes_back(tmp_path, labels):
    whole = {"classes": labels.names[:3], "domains": {KEYS[1]: (5, 6, 30, 20)}}
    manifest = manifest_of(labels, **whole)
    with StoreWriter(tmp_path / "a", manifest) as writer:
        for prediction in predictions_of(labels):
            writer.append(prediction)
    found = PredictionStore(tmp_path / "a")
    assert found.manifest == manifest
    assert [p.domain_xywh for p in found] == [None, (5, 6, 30, 20), *[None] * 5]
    assert {p.classes for p in found} == {frozenset(labels.names[:3])}


def test_a_manifest_from_before_knew_no_domains(tmp_path, labels):
    text = json.loads(manifest_of(labels).dumps())
    del text["classes"], text["domains"]
    (tmp_path / "manifest.json").write_text(json.dumps(text))
    assert Manifest.load(tmp_path / "manifest.json") == manifest_of(labels)


def test_a_label_space_travels_whole(tmp_path, labels):
    space = LabelSpace(
        "own", labels.names, {"some": labels.names[1:3]}, {"other": labels.names[0]}, once=True
    )
    found = write(tmp_path / "a", manifest_of(space, images={}, space=space), [])
    assert found.label_space() == space
    assert found.manifest.space == space


def test_the_name_of_an_old_store_s_label_space_may_be_given(tmp_path, labels):
    found = write(tmp_path / "a", manifest_of(replace(labels, name="gone"), images={}), [])
    with pytest.raises(ValueError, match="gone"):
        found.label_space()
    assert found.label_space(labels) == labels


@pytest.mark.parametrize("change", [{"once": True}, {"background": "3"}, {"groups": {}}])
def test_stores_of_other_label_spaces_are_refused(tmp_path, labels, change):
    spaces = labels, replace(labels, **change)
    stores = [
        write(tmp_path / str(i), manifest_of(labels, images={}, space=space), [])
        for i, space in enumerate(spaces)
    ]
    with pytest.raises(ValueError, match=f"its label space has another '{next(iter(change))}'"):
        check_match(stores)


BAD_VALUES = [
    ({"kind": "semantik"}, "'kind': expected one of semantic, instance"),
    ({"fold": "0"}, "'fold': expected a number from 0, or null, found '0'"),
    ({"fold": True}, "'fold'"),
    ({"fold": -1}, "'fold'"),
    ({"subset": "vql"}, "'subset': expected one of val, train, test, all, found 'vql'"),
    ({"images_per_part": 0}, "'images_per_part'"),
    ({"images_per_part": 2.5}, "'images_per_part'"),
    ({"split": None}, "'split': expected a text"),
    ({"images": [["a", 1, 1, "a"], ["a", 1, 1, "a"]]}, "listed twice"),
    ({"space": {"name": "x", "names": ["y"]}}, "'names' are not the classes of the label space"),
    ({"something": 1}, "something"),
]


@pytest.mark.parametrize(("change", "said"), BAD_VALUES)
def test_values_of_a_manifest_are_checked(tmp_path, labels, change, said):
    text = json.loads(manifest_of(labels).dumps()) | change
    (tmp_path / "manifest.json").write_text(json.dumps(text))
    with pytest.raises(ValueError, match=re.escape(said)):
        Manifest.load(tmp_path / "manifest.json")


def answer(folder):
    """What a store says: manifest and rows; None where it is refused."""
    try:
        found = PredictionStore(folder)
        rows = [
            (p.key, [(*row[:3], row[3].box_xywh, row[3].prob.tobytes()) for row in p.rows()])
            for p in found
        ]
    except ValueError:
        return None
    return found.manifest, rows


@pytest.mark.slow
@pytest.mark.parametrize("name", ["part-00001.parquet", "manifest.json", "SHA256SUMS"])
def test_a_flipped_bit_is_noticed_wherever_it_is(written, name):
    good, true = (written.path / name).read_bytes(), answer(written.path)
    picks = np.random.default_rng(5).choice(8 * len(good), 300, replace=False)
    for pick in picks.tolist():
        bad = bytearray(good)
        bad[pick // 8] ^= 1 << pick % 8
        (written.path / name).write_bytes(bad)
        assert answer(written.path) in (None, true), pick


def test_checksums_are_those_of_coreutils(written):
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    if shutil.which(command[0]) is None:
        pytest.skip("no coreutils")
    subprocess.run(command, cwd=written.path, check=True, capture_output=True)


def test_a_store_without_its_checksums_is_refused(written):
    (written.path / "SHA256SUMS").unlink()
    with pytest.raises(ValueError, match="SHA256SUMS: expected the checksums"):
        PredictionStore(written.path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "found no such file"),
        (b"\xff\xfe", "found bytes that are no text"),
        (b"", r"expected a checksum of manifest\.json, found none"),
        (b"garbage\n", "line 1: expected a SHA-256 and a name, found 'garbage'"),
    ],
)
def test_broken_checksums_say_what_to_do_in_one_line(written, content, found):
    path = written.path / "SHA256SUMS"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ValueError, match=found) as error:
        PredictionStore(written.path)
    assert re.fullmatch(
        rf"{path}( line 1)?: expected .* copy .* again from where .*", str(error.value)
    )
    assert "Errno" not in str(error.value)


def test_a_store_from_before_checksums_is_read(written, predictions):
    forget_checksums(written.path)
    for found, expected in zip(PredictionStore(written.path), predictions, strict=True):
        assert_equal(found, expected)


def test_a_damaged_part_is_written_again(tmp_path, labels, predictions, written):
    killed = StoreWriter(tmp_path / "b", manifest_of(labels))
    for prediction in predictions[:6]:
        killed.append(prediction)
    part = killed.folder / "part-00001.parquet"
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    del killed
    with StoreWriter(tmp_path / "b", manifest_of(labels)) as writer:
        assert list(writer.remaining) == KEYS[2:]
        for prediction in predictions[2:]:
            writer.append(prediction)
    assert content(tmp_path / "b") == content(written.path)
