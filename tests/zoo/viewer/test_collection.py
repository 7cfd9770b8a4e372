import json
import shutil

import numpy as np
import pytest

from converters import DataError
from converters.edits.edits import Edits
from converters.files.provenance import write_provenance
from converters.masks import rasterize_labels
from fusion.binary import binary_masks
from fusion.rules.file import load_rule
from zoo.viewer.browsing import ORDERS, PQ, Filter, browse
from zoo.viewer.collection import Collection, read_findings
from zoo.viewer.places import Places
from zoo.viewer.sources import names_of
from zoo.viewer.start import page_arguments

pytestmark = pytest.mark.slow


@pytest.fixture
def opened(show, tmp_path):
    found = Collection.open(
        show.paths, tmp_path / "edits.yaml", labels_name=str(show.space), method="mean"
    )
    found.measurements.start()
    assert found.measurements.wait(60)
    return found


def dice(a, b):
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def planes(masks, size_hw):
    return {name: mask.full(size_hw) for name, mask in masks.items()}


def test_measures_are_those_of_dense_planes(opened, show):
    for key, sample in show.samples.items():
        truth = planes(rasterize_labels(sample.instances, sample.size_hw), sample.size_hw)
        said = {
            source.name: planes(binary_masks(source.read(key), opened.labels), sample.size_hw)
            for source in opened.sources
        }
        row = opened.measurements.rows[key]
        assert [one.label for one in row.rows] == list(show.labels.names)
        for one in row.rows:
            name = one.label
            assert one.true_px == truth[name].sum()
            heard = [s for s in said if not (s == "c" and name == show.labels.names[-1])]
            assert set(one.dice) == set(heard)
            for source in heard:
                assert one.source_px[source] == said[source][name].sum()
                assert one.dice[source] == pytest.approx(dice(said[source][name], truth[name]))
            # The fusion is no source that could disagree with what it is made of.
            assert "fusion" not in {n for pair in one.between for n in pair}
            for (a, b), value in one.between.items():
                assert value == pytest.approx(dice(said[a][name], said[b][name]))
        values = [one.disagreement for one in row.rows]
        assert row.disagreement == pytest.approx(np.mean(values))
        assert row.worst().mean_dice == min(one.mean_dice for one in row.rows)


@pytest.mark.parametrize("order", [order for order in ORDERS if order != PQ])
@pytest.mark.parametrize("by_structure", [False, True])
def test_lists_are_sorted(opened, order, by_structure):
    lines = browse(opened, Filter(order=order, by_structure=by_structure), opened.measurements.rows)
    assert len(lines) == (6 * 9 if by_structure else 6)
    values = {
        ORDERS[0]: [line.key for line in lines],
        ORDERS[1]: [-line.image_px for line in lines],
        ORDERS[2]: [line.mask_px for line in lines],
        ORDERS[3]: [-line.mask_px for line in lines],
        ORDERS[4]: [line.dice for line in lines],
        ORDERS[5]: [-line.disagreement for line in lines],
    }[order]
    assert values == sorted(values)


def test_lists_are_filtered(opened, show):
    rows = opened.measurements.rows
    first = next(iter(show.samples))
    tile = show.labels.names[1]
    word = first.rpartition("/")[2].upper()
    assert [line.key for line in browse(opened, Filter(text=word), rows)] == [first]
    assert len(browse(opened, Filter(text="toy nowhere"), rows)) == 0
    assert {line.patient for line in browse(opened, Filter(patients={"1"}), rows)} == {"1"}
    only = browse(opened, Filter(labels={tile}, by_structure=True), rows)
    assert {line.label for line in only} == {tile}
    assert len(only) == 6
    by_image = browse(opened, Filter(labels={tile}), rows)
    assert [line.mask_px for line in by_image] == [
        next(r.true_px for r in rows[line.key].rows if r.label == tile) for line in by_image
    ]


def test_two_sources_are_compared(opened):
    rows = opened.measurements.rows
    lines = browse(opened, Filter(pair=("a", "b"), order=ORDERS[4]), rows)
    for line in lines:
        found = [one.between["a", "b"] for one in rows[line.key].rows]
        assert line.dice == pytest.approx(np.mean(found))


def test_several_objects_of_a_class_are_scored_one_by_one(cells, zoo, tmp_path):
    given = [cells / "data", cells / "apart", cells / "plain"]
    found = Collection.open(given, tmp_path / "edits.yaml", method="mean")
    found.measurements.start()
    assert found.measurements.wait(60)
    rows = found.measurements.rows
    lines = browse(found, Filter(order=PQ), rows)
    # The fusion keeps them apart as the detector does.
    quality = {name: (1.0, 0.0, 1.0) if name == "row_1" else (v,) * 3 for name, v in
        (("row_1", None), ("two_2", pytest.approx(0.6)), ("two_3", 1.0))}  # fmt: skip
    assert [line.key.rpartition("/")[2] for line in lines] == ["two_2", "row_1", "two_3"]
    for line in lines:
        (row,) = rows[line.key].rows
        expected = quality[line.key.rpartition("/")[2]]
        assert tuple(row.pq[name] for name in ("apart", "plain", "fusion")) == expected
        assert line.pq == pytest.approx(sum(row.pq.values()) / 3)
    pair = browse(found, Filter(order=PQ, pair=("apart", "plain")), rows)
    worst = pair[0]
    assert (worst.key.rpartition("/")[2], worst.pq, worst.dice) == ("row_1", 0, 1)
    zoo("evaluate", cells / "plain", "--data", cells / "data", "--json", tmp_path / "scores.json")
    scores = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))["per_image"]
    for key, image in scores.items():
        assert image["objects"]["cell"]["pq"] == rows[key].rows[0].pq["plain"]


def test_no_objects_are_looked_for_where_no_class_has_several(opened):
    assert not opened.has_several
    assert {line.pq for line in browse(opened, Filter(), opened.measurements.rows)} == {None}


def test_what_is_not_measured_yet_comes_last(opened):
    rows = opened.measurements.rows
    first = min(rows)
    left = {key: row for key, row in rows.items() if key != first}
    lines = browse(opened, Filter(order=ORDERS[4]), left)
    assert (lines[-1].key, lines[-1].dice) == (first, None)
    assert len(browse(opened, Filter(by_structure=True), left)) == 5 * 9


# --- corrections


def test_a_correction_changes_what_is_shown_and_not_the_source(opened, show):
    key = next(iter(show.samples))
    a, b, *_ = show.labels.names[1:]
    before = opened.show(key)
    files = {path: path.read_bytes() for path in show.data.rglob("*") if path.is_file()}
    opened.edit("swap_labels", {"key": key, "labels": [a, b]})
    after = opened.show(key)
    for old, new in ((a, b), (b, a)):
        assert (
            before.truth[old].full(before.size_hw) == after.truth[new].full(before.size_hw)
        ).all()
    assert opened.measurements.wait(60)
    row = next(r for r in opened.measurements.rows[key].rows if r.label == a)
    assert row.true_px == before.truth[b].area
    assert {path: path.read_bytes() for path in files} == files
    # The command line understands it.
    edits = Edits.load(opened.edits_path)
    edits.apply(list(show.samples.values()), subset="all", labels=show.labels)
    opened.undo("swap_labels", 0)
    assert opened.show(key).truth[a].area == before.truth[a].area


def test_each_image_is_corrected_as_all_of_them_are(opened, show):
    first, second, third, *_ = show.samples
    a, b, c, *_ = show.labels.names[1:]
    for section, entry in {
        "exclude_images": {"key": first},
        "drop": {"key": second, "label": a, "part": 0},
        "relabel": {"key": third, "label": b, "to": a},
        "drop_class": {"label": c},
        "relabel_class": {"label": show.labels.names[-1], "to": c, "keys": [second]},
        "regroup": {"key": third, "group": "new"},
    }.items():
        opened.edit(section, entry)
    whole = Edits.load(opened.edits_path).apply(
        list(show.samples.values()), subset="all", labels=show.labels
    )
    alone = [opened.correct(sample) for sample in show.samples.values()]
    assert [error for _, error in alone if error] == []
    assert [sample for sample, _ in alone if sample is not None] == whole
    assert opened.is_excluded(first)
    assert opened.patient(third) == "new"
    assert first not in {line.key for line in browse(opened, Filter(hides_excluded=True), {})}


@pytest.mark.parametrize(
    ("section", "entry", "expected"),
    [
        ("drop", {"label": "tile-9"}, "expected a label of 'odd', found 'tile-9'"),
        ("drop", {"label": "tile-1", "part": 3}, "expected parts 0 to 0"),
        ("swap_labels", {"labels": ["tile-1", "tile-1"]}, "expected two different labels"),
    ],
)
def test_a_correction_that_does_not_fit_is_not_written(opened, show, section, entry, expected):
    key = next(iter(show.samples))
    with pytest.raises(DataError, match=expected):
        opened.edit(section, {"key": key, **entry})
    assert not opened.edits_path.exists()


def test_what_people_write_into_the_file_is_seen(opened, show):
    key = next(iter(show.samples))
    opened.edits_path.write_text(f"version: 1\nexclude_images: [{{key: {key}}}]\n")
    opened.refresh()
    assert opened.is_excluded(key)
    assert opened.show(key).corrected is None
    assert opened.show(key).truth


def test_an_entry_that_fits_nothing_is_told_where_it_is(opened, show):
    key = next(iter(show.samples))
    opened.edits_path.write_text(f"version: 1\ndrop: [{{key: {key}, label: tile-1, part: 7}}]\n")
    opened.refresh()
    assert "expected parts 0 to 0 of 'tile-1'" in opened.show(key).problem


# --- what is given


def test_a_run_brings_its_stores_and_names_are_kept_apart(show, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("family: smp\n")
    (run / "val").symlink_to(show.stores[0])
    found = Places.sort([show.data, tmp_path / "run", show.csv])
    assert found == Places(show.data, (show.csv, run / "val"), (run,))
    folds = tmp_path / "folds"
    (folds / "fold-0").mkdir(parents=True)
    (folds / "fold-0" / "config.yaml").write_text("family: smp\n")
    (folds / "oof").symlink_to(show.stores[1])
    (folds / "drawing.png").symlink_to(next(show.data.rglob("*.png")))
    assert Places.sort([folds]) == Places(None, (folds / "oof",), (folds,))
    other = tmp_path / "other" / "c.csv"
    assert names_of([show.csv, other, run / "val"]) == [f"{show.folder.name}/c", "other/c", "run"]


def test_a_folder_of_stores_is_these(show, tmp_path):
    stores = [tmp_path / "val" / name for name in ("a", "b")]
    for store in stores:
        shutil.copytree(next(iter(show.stores)), store)
    (tmp_path / "val/notes.txt").write_text("of others")
    assert Places.sort([show.data, tmp_path / "val"]) == Places(show.data, tuple(stores))


def test_stores_are_shown_without_a_data_set(show, tmp_path):
    found = Collection.open(show.stores, tmp_path / "edits.yaml")
    assert list(found.entries) == list(show.samples)
    shown = found.show(next(iter(show.samples)))
    assert (shown.sample, shown.truth, set(shown.masks)) == (None, None, {"a", "b"})


def test_sources_of_other_images_are_shown_where_they_have_them(show, tmp_path):
    keys = list(show.samples)
    show.write_store(tmp_path / "few", [show.samples[keys[0]]], show.labels, 7)
    found = Collection.open([*show.paths[:2], tmp_path / "few"], tmp_path / "edits.yaml")
    assert set(found.show(keys[0]).masks) == {"a", "few"}
    assert set(found.show(keys[1]).masks) == {"a"}


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (lambda show: [show.data, show.data], "expected one data set, found 2"),
        (lambda show: [show.folder / "nowhere"], "found nothing"),
        (lambda show: [show.folder], "expected a data set in one format"),
    ],
)
def test_what_is_none_of_these_is_refused(show, paths, expected):
    with pytest.raises(ValueError, match=expected):
        Places.sort(paths(show))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", "expected a list of findings"),
        ('[{"kind": "odd", "key": "a", "what": "b", "score": 1}]', "finding 0: .*kind of"),
        ('["a"]', "finding 0: expected an object"),
    ],
)
def test_what_no_audit_has_written_is_refused(tmp_path, text, expected):
    path = tmp_path / "findings.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=expected):
        read_findings(path)


def test_stores_of_one_model_are_one_source_where_their_images_differ(show, tmp_path):
    first, second, third, *_ = show.samples.values()
    for name, seen in (
        ("val/unet", [first]),
        ("test/unet", [second, third]),
        ("oof/unet", [third]),
    ):
        show.write_store(tmp_path / name, seen, show.labels, 3)
    paths = [tmp_path / part / "unet" for part in ("val", "test", "oof")]
    found = Collection.open([show.data, *paths], tmp_path / "edits.yaml")
    assert [source.name for source in found.sources] == ["val/unet", "oof/unet"]
    found = Collection.open([show.data, *paths[:2]], tmp_path / "edits.yaml", method="mean")
    assert [source.name for source in found.sources] == ["unet", "fusion"]
    for sample in (first, second):
        assert set(found.show(sample.key).masks) == {"unet", "fusion"}
    alone = Collection.open([show.data, paths[0]], tmp_path / "edits.yaml")
    key = first.key
    for name, mask in alone.show(key).masks["unet"].items():
        size_hw = first.size_hw
        assert (mask.full(size_hw) == found.show(key).masks["unet"][name].full(size_hw)).all()


def write_pipeline(show, folder, rule, recipe=""):
    """A folder as `zoo run` leaves it: stores of two models, held-out and test, and a rule."""
    folder.mkdir()
    write_provenance(folder, ["zoo", "run"], kind="pipeline")
    models = "{a: {family: smp, config: laptop}, b: {family: smp, config: laptop}}"
    text = f"data: {show.data}\nlabels: {show.space}\nmodels: {models}\n{recipe}"
    (folder / "recipe.yaml").write_text(text)
    first, *others = show.samples.values()
    for seed, name in enumerate("ab"):
        show.write_store(folder / "val" / name, others, show.labels, 100 * seed)
        show.write_store(folder / "test" / name, [first], show.labels, 100 * seed + 50)
    (folder / "fusion.yaml").write_text(rule)
    return folder


def test_a_pipeline_brings_its_images_its_sources_and_its_fusion(show, tmp_path):
    folder = write_pipeline(show, tmp_path / "run", "method: weighted\nweights: {a: 3, b: 1}\n")
    page_arguments([folder], tmp_path / "edits.yaml")
    found = Collection.open([folder], tmp_path / "edits.yaml")
    assert list(found.samples) == list(show.samples)
    assert [source.name for source in found.sources] == ["a", "b", "fusion"]
    assert found.notes == []
    for key in show.samples:
        shown = found.show(key)
        assert set(shown.masks) == {"a", "b", "fusion"}
        said = [shown.predictions[name] for name in "ab"]
        fused = load_rule(None, folder / "fusion.yaml")(said, found.labels)
        expected = binary_masks(fused, found.labels)
        for name, mask in shown.masks["fusion"].items():
            assert (mask.full(shown.size_hw) == expected[name].full(shown.size_hw)).all()


def test_a_pipeline_s_fusion_gives_way_to_the_one_that_is_asked_for(show, tmp_path):
    folder = write_pipeline(show, tmp_path / "run", "method: weighted\nweights: {a: 3, b: 1}\n")
    found = Collection.open([folder], tmp_path / "edits.yaml", method="max")
    rule = next(source.rule for source in found.sources if source.kind == "fusion")
    assert type(rule).__name__ == "Max"


def test_a_rule_whose_models_have_not_predicted_yet_is_no_hindrance(show, tmp_path):
    folder = write_pipeline(show, tmp_path / "run", "method: weighted\nweights: {a: 3, late: 1}\n")
    found = Collection.open([folder], tmp_path / "edits.yaml")
    assert [source.name for source in found.sources] == ["a", "b"]
    assert "found no late" in found.notes[0]


def test_images_of_a_test_folder_are_shown_too(show, tmp_path):
    sample = next(iter(show.samples.values()))
    (tmp_path / "new").mkdir()
    shutil.copy(sample.image, tmp_path / "new" / f"other{sample.image.suffix}")
    rule = "method: weighted\nweights: {a: 3, b: 1}\n"
    folder = write_pipeline(show, tmp_path / "run", rule, recipe="test: ../new\n")
    found = Collection.open([folder], tmp_path / "edits.yaml")
    further = [key for key in found.samples if key not in show.samples]
    assert [key.rpartition("/")[2] for key in further] == ["other"]
    assert found.show(further[0]).truth is None
