"""The page of a fusion: what is measured, what a rule added, and what the page says of it."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from shapely import affinity
from shapely.geometry import MultiPolygon, Point, box

from converters.files.images import read_pixels
from converters.masks import CropMask, rasterize_labels
from converters.types import Instance, LabelSpace, Sample
from fusion import Hybrid, Mean, Vote
from fusion.metrics.annotated import truth_masks
from fusion.metrics.scores import score_image
from fusion.rules.base import WrappedRule
from fusion.rules.hybrid import ClassWeights
from fusion.rules.refine import Refine, Refined, Steps
from fusion.sources.ensemble import Ensemble
from fusion.sources.manifest import Manifest
from fusion.sources.store import StoreWriter
from fusion.types import Prediction, SoftMask
from zoo.report import intervals, plots, sections
from zoo.report.fusion import breakdown, gains, measuring
from zoo.report.fusion import report as fusion_report
from zoo.report.fusion.tables import score_table, subject_of
from zoo.report.fusion.weight_table import weight_table
from zoo.source import DataSource

pytestmark = pytest.mark.slow

SIZE = (90, 140)  # not square
NAMES = ("shaft", "left one", "right-one", "Ulna")
LABELS = LabelSpace("toy", NAMES, {"wrist": ("left one", "right-one")}, once=True)
KEYS = tuple(f"ID_{i // 2}/image_{i}_L" for i in range(6))


def ellipse(x, y, a, b):
    return affinity.translate(affinity.scale(Point(0, 0).buffer(1), a, b), x, y)


OUTLINES = {
    "shaft": ellipse(30, 60, 15, 25).difference(ellipse(30, 60, 5, 7)),
    "left one": ellipse(80, 30, 16, 12),
    "right-one": ellipse(95, 33, 14, 13),
    "Ulna": MultiPolygon([box(80, 65, 98, 89), box(110, 70, 139, 89)]),
}


@dataclass(frozen=True)
class Heard:
    """A source in memory."""

    name: str
    predictions: tuple
    classes: frozenset = frozenset(NAMES)
    digest: str = ""

    @property
    def path(self):
        return Path(self.name)

    def part(self, start, stop):
        return self.predictions[start:stop]


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


def predict(sample, shift_px, without=(), level=255, faint=()):
    masks = {}
    for name, mask in rasterize_labels(sample.instances, SIZE).items():
        plane = np.roll(mask.full(SIZE), shift_px, axis=1)
        value = 100 if name in faint else level
        if name not in without:
            soft = SoftMask((0, 0, SIZE[1], SIZE[0]), plane * np.uint8(value))
            masks[name] = ((1.0, soft),)
    return Prediction(sample.key, SIZE, "semantic", masks)


def ensemble(samples, **options):
    sources = tuple(
        Heard(name, tuple(predict(sample, **given) for sample in samples.values()))
        for name, given in options.items()
    )
    images = {key: (*SIZE, sample.file_name) for key, sample in samples.items()}
    return Ensemble(sources, LABELS, images)


@pytest.fixture(scope="module")
def three(samples):
    """One source shifted to the left, one to the right by more, one that misses a bone."""
    return ensemble(
        samples,
        left={"shift_px": -2},
        right={"shift_px": 5},
        blind={"shift_px": 0, "without": ("Ulna",)},
    )


def quiet(done, total, note=""):
    pass


RULES = {"mean": Mean(), "vote": Vote(), "hybrid": Hybrid()}


@pytest.fixture(scope="module")
def measured(three, samples):
    return measuring.measure(three, RULES, samples, quiet)


def entry(measured, name):
    return next(entry for entry in measured.entries if entry.name == name)


# --- what is measured


def test_sources_come_first_then_rules(measured):
    found = [(entry.name, entry.kind) for entry in measured.entries]
    names = ["left", "right", "blind", "mean", "vote", "hybrid"]
    assert found == [(name, "rule" if name in RULES else "source") for name in names]


def test_a_source_scores_as_it_does_alone(measured, three, samples):
    for source in three.sources:
        for prediction, score in zip(
            source.predictions, entry(measured, source.name).scores.images, strict=True
        ):
            masks = {name: prediction.binary(name) for name in NAMES}
            alone = score_image(score.key, masks, truth_masks(samples[score.key], LABELS), LABELS)
            assert (score.dice, score.shared) == (alone.dice, alone.shared)
            assert score.patient == samples[score.key].group


def test_images_without_truth_are_left_out(three, samples):
    known = {key: samples[key] for key in (KEYS[4], KEYS[1], KEYS[2])}
    found = measuring.measure(three, RULES, known, quiet)
    assert [image.key for image in found.entries[0].scores.images] == [KEYS[1], KEYS[2], KEYS[4]]


def test_another_frame_is_refused(three, samples):
    known = {KEYS[0]: replace(samples[KEYS[0]], size_hw=SIZE[::-1])}
    with pytest.raises(ValueError, match=r"predicted at \(90, 140\), its truth is \(140, 90\)"):
        measuring.measure(three, RULES, known, quiet)


def test_rules_get_the_sources_that_they_name(three, samples):
    names = ("blind", "left", "right")
    keep = {name: ClassWeights.single(1, names) for name in NAMES}
    found = measuring.measure(three, {"hybrid": Hybrid(names, keep)}, samples, quiet)
    assert entry(found, "hybrid").scores.per_class() == entry(found, "left").scores.per_class()
    with pytest.raises(ValueError, match="expects the sources a, b"):
        measuring.measure(three, {"hybrid": Hybrid(("a", "b"))}, samples, quiet)


def test_a_bone_that_only_a_faint_mask_shows_is_recovered(samples):
    sources = ensemble(
        samples,
        one={"shift_px": 0, "faint": ("Ulna",)},
        two={"shift_px": 0, "without": ("Ulna",)},
    )
    found = measuring.measure(sources, RULES, samples, quiet)
    assert found.recovered["hybrid"] == {"Ulna": KEYS}
    assert found.recovered["mean"] == {}
    (row,) = [g for g in gains_of(found).classes if g.name == "Ulna"]
    assert (row.recovered, row.missing, row.missing_winner) == (6, 0, 6)


@pytest.mark.parametrize("recover", [True, False])
def test_hybrids_are_found_inside_other_rules(recover):
    class Around(WrappedRule):
        def __call__(self, predictions, labels):
            return self.rule(predictions, labels)

    hybrid = Hybrid(recover=recover)
    assert measuring.hybrid_in(hybrid) is hybrid
    assert measuring.hybrid_in(Around(hybrid)) is hybrid
    assert measuring.hybrid_in(Around(Mean())) is None
    assert measuring.hybrid_in(None) is None


# --- what fusion added


def gains_of(measured, hybrid=None):
    return gains.find_gains(measured, subject_of(measured.entries), hybrid)


def test_gains_are_differences_of_means(measured):
    found = gains_of(measured)
    hybrid, mean = entry(measured, "hybrid").scores, entry(measured, "mean").scores
    for row in found.classes:
        alone = {
            name: entry(measured, name).scores.mean([row.name])
            for name in ("left", "right", "blind")
        }
        assert row.winner_dice == max(alone.values()) == alone[row.winner]
        assert row.over_best.mean == pytest.approx(hybrid.mean([row.name]) - row.winner_dice)
        difference = hybrid.mean([row.name]) - mean.mean([row.name])
        assert row.over_mean.mean == pytest.approx(difference)
    everything = found.overall[0]
    assert (everything.name, everything.winner) == ("all", "left")
    assert (found.images, found.people) == (6, 3)


def test_who_won_where(measured):
    found = {row.name: row for row in gains_of(measured).classes}
    assert (found["shaft"].winner, found["shaft"].won) == ("blind", 6)
    assert (found["Ulna"].winner, found["Ulna"].won) == ("left", 6)


def test_one_source_is_no_fusion(samples):
    sources = ensemble(samples, one={"shift_px": 0})
    found = measuring.measure(sources, {"hybrid": Hybrid()}, samples, quiet)
    assert gains_of(found) is None


def test_gains_can_be_written_as_json(measured):
    record = json.loads(json.dumps(gains_of(measured).record()))
    assert [row["name"] for row in record["classes"]] == list(NAMES)
    assert set(record["classes"][0]["over_best"]) == {"mean", "interval"}


def test_tally_counts_every_class_once(measured):
    table = gains.gain_table(gains_of(measured), LABELS)
    assert sum(table.tally) == len(NAMES)
    titles = [title for title, _ in table.sections]
    assert titles == ["together", "wrist", "other classes"]


# --- weights


def fitted():
    pool = ClassWeights(
        0.2, {"alone": (2.0, 1.0, 1.0), "shared": (0.0, 1.0, 0.0), "outline": (1.0, 1.0, 2.0)}
    )
    keep = ClassWeights.single(1, ("left", "right"))
    return Hybrid(("left", "right"), {"shaft": pool, "Ulna": keep})


def test_shares_are_parts_of_a_zone():
    table = weight_table(fitted(), LABELS)
    assert table.columns == ("left", "right", "their mean")
    rows = {row.name: row for _, part in table.sections for row in part}
    assert [[s.share for s in zone] for zone in rows["shaft"].zones] == [
        [0.5, 0.25, 0.25],
        [0.0, 1.0, 0.0],
        [0.25, 0.25, 0.5],
    ]
    assert table.kept == (("right", ("Ulna",)),)
    assert weight_table(Hybrid(), LABELS) is None


# --- a closer look


def test_mixed_bones_are_counted_as_on_whole_planes(measured, three, samples):
    shown = entry(measured, "right")
    rows = breakdown.mixed_up(shown, None)
    pixels = dict.fromkeys([(row.true, row.other) for row in rows], 0)
    for prediction in three.sources[1].predictions:
        found = {name: prediction.binary(name).full(SIZE) > 0 for name in NAMES}
        true = {
            n: m.full(SIZE) > 0 for n, m in truth_masks(samples[prediction.key], LABELS).items()
        }
        for a, b in pixels:
            pixels[a, b] += int((true[a] & ~found[a] & found[b]).sum())
    assert {(row.true, row.other): row.pixels for row in rows} == pixels
    assert ("left one", "right-one") in pixels or ("right-one", "left one") in pixels


def with_postures(entries, postures):
    return [
        replace(
            one,
            scores=replace(
                one.scores,
                images=[
                    replace(image, posture=posture)
                    for image, posture in zip(one.scores.images, postures, strict=True)
                ],
            ),
        )
        for one in entries
    ]


def test_postures_are_scored_apart(measured):
    entries = with_postures(measured.entries, ["bent", "straight"] * 3)
    table = breakdown.posture_table(entries, LABELS, entries[-1], entries[0])
    assert table.postures == (("straight", 3), ("bent", 3))
    images = entries[0].scores.images[1::2]
    expected = np.mean([list(image.dice.values()) for image in images])
    assert table.rows[0].cells[0][0].value == pytest.approx(expected)


@pytest.mark.parametrize("postures", [[""] * 6, ["bent"] * 6])
def test_one_posture_is_no_table(measured, postures):
    entries = with_postures(measured.entries, postures)
    assert breakdown.posture_table(entries, LABELS, entries[-1], entries[0]) is None


def test_boxes_have_every_class_and_no_names_of_their_own():
    rows = {f"<{n}>": [[0.0, 0.5, 0.97, 1.0], [1.0] * 4] for n in "abc"}
    drawn = plots.plot_boxes(rows, ["one", "two & three"])
    assert all(f"&lt;{n}&gt;" in drawn for n in "abc")
    assert "two &amp; three" in drawn
    assert "http" not in drawn
    assert "nan" not in drawn


def test_sections_hold_every_class_once():
    rows = {name: name for name in NAMES}
    found = sections.by_group(rows, LABELS)
    assert sorted(name for _, part in found for name in part) == sorted(NAMES)
    assert sections.by_group(rows, LabelSpace("plain", NAMES)) == [("", NAMES)]
    assert sections.by_group({"Ulna": "Ulna"}, LABELS) == [("other classes", ("Ulna",))]


def test_intervals_are_said_with_their_sign():
    assert intervals.say(intervals.Estimate(0.5, None)) == "+0.5000 [one patient]"


# --- the page


def write(out, sources, samples, rules):
    return fusion_report.report_fusion(
        out, title="t", sources=sources, rules=rules, samples=samples, facts=[], report=quiet
    )


def test_the_page_shows_bones_weights_and_cases(tmp_path, three, samples):
    names = ("left", "right", "blind")
    pool = ClassWeights.plain(3)
    hybrid = Hybrid(names, {"shaft": pool, "Ulna": ClassWeights.single(0, names)})
    found = write(tmp_path / "a.html", three, samples, {**RULES, "hybrid": hybrid})
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "What hybrid added" in page
    assert "keeps left" in page
    assert "What each source contributes" in page
    assert "Distribution" in page
    assert page.count("<img ") == 2 * (2 + 2 * 6)
    assert str(tmp_path) not in page
    assert json.loads(json.dumps(found.record()))["gains"]["rule"] == "hybrid"


def test_a_page_about_the_mean_is_not_beside_the_mean(tmp_path, samples):
    sources = ensemble(samples, one={"shift_px": 3}, two={"shift_px": -4})
    write(tmp_path / "a.html", sources, samples, {"mean": Mean()})
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "What mean added" in page
    assert not any(f in page for f in ("over the plain mean", ">weights</th>", "nothing drawn"))


def test_the_page_says_what_is_refined(tmp_path, three, samples):
    steps = Refine(Steps(threshold=0.4), {"wrist": Steps(parts=1.0, threshold=0.6)})
    given = {"refined": Refined(Mean(), steps), "plain": Refined(Mean(), Refine())}
    pages = {}
    for name, rule in given.items():
        write(tmp_path / f"{name}.html", three, samples, {"mean": rule})
        pages[name] = (tmp_path / f"{name}.html").read_text(encoding="utf-8")
    assert "threshold (others, wrist); parts (wrist)" in pages["refined"]
    assert "Refined after fusing" not in pages["plain"]


def test_a_rule_that_looks_at_images_is_given_them(tmp_path, three, samples):
    seen = []

    @dataclass(frozen=True)
    class Watchful(Refine):
        needs_image = True

        def __call__(self, fused, labels, image=None):
            seen.append((fused.key, image))
            return fused

    write(tmp_path / "a.html", three, samples, {"mean": Refined(Mean(), Watchful())})
    assert {key for key, _ in seen} == set(KEYS)
    assert all(np.array_equal(grey, read_pixels(samples[key])) for key, grey in seen)


def test_a_single_image_and_source_make_a_page(tmp_path, samples):
    sources = ensemble({KEYS[0]: samples[KEYS[0]]}, one={"shift_px": 3})
    found = write(tmp_path / "a.html", sources, {KEYS[0]: samples[KEYS[0]]}, {})
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert found.gains is None
    assert "What" not in page.split("<main>")[1].split("What the numbers mean")[0]


# --- the command


@pytest.fixture(scope="module")
def hands(write_hands):
    return write_hands(2, a=1, b=-1, mean=2)


def test_submissions_make_a_report(zoo, hands, capsys):
    out, data = hands / "page", hands / "data"
    zoo("report", hands / "a.csv", hands / "b.csv", "--data", data, "--out", out)
    assert {p.name for p in out.iterdir()} == {"report.html", "report.json", "provenance.json"}
    record = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert list(record["entries"]) == ["a", "b", "vote", "mean"]
    assert record["gains"]["rule"] == "mean"
    assert record["headline"].startswith("mean 0.")
    assert "mean, as no config was given" in (out / "report.html").read_text(encoding="utf-8")
    said = capsys.readouterr().out
    assert "Pisiform" in said
    # Not every terminal has a real minus.
    assert said.isascii()


@pytest.mark.long
def test_several_processes_make_the_same_report(zoo, hands, capsys):
    pages = []
    for jobs in (1, 2):
        out = hands / "jobs"
        given = hands / "a.csv", hands / "b.csv", "--data", hands / "data", "--out", out
        zoo("report", *given, "--jobs", jobs)
        pages.append([(out / name).read_bytes() for name in ("report.html", "report.json")])
    assert pages[0] == pages[1]


def write_held_out(path, samples, split):
    labels = LabelSpace.load("hand_bones")
    images = {key: (*sample.size_hw, sample.file_name) for key, sample in samples.items()}
    manifest = Manifest("semantic", labels.name, labels.names, images, split=split, subset="val")
    with StoreWriter(path, manifest) as writer:
        for key, sample in samples.items():
            writer.append(Prediction(key, sample.size_hw, "semantic", {}))
    return path


def test_held_out_predictions_of_different_splits_are_refused(zoo, hands, capsys):
    samples = DataSource.open(hands / "data").annotated(LabelSpace.load("hand_bones"), "test")
    stores = [write_held_out(hands / f"val_{s}", samples, s) for s in ("one", "two")]
    zoo("report", *stores, "--data", hands / "data", "--out", hands / "never", code=2)
    assert "held-out predictions of the split of" in capsys.readouterr().err
    assert not (hands / "never").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("a.csv", "none.csv"), "found nothing"),
        (("a.csv", "mean.csv"), "rename the folder or the file"),
        (("a.csv", "a.csv"), "leave one of them out"),
        (("a.csv", "b.csv", "--config", "none.yaml"), "none.yaml"),
    ],
)
def test_bad_input_is_one_line(zoo, hands, capsys, given, said):
    paths = [g if g.startswith("--") else hands / g for g in given]
    zoo("report", *paths, "--data", hands / "data", "--out", hands / "never", code=2)
    lines = capsys.readouterr().err.strip().splitlines()
    assert said in lines[-1]
    assert len(lines) == 1
    assert not (hands / "never").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("method: hybrid\nsources: [a, x]\nclasses: {}\n", "fusion.yaml: 'sources': the fusion"),
        ("method: vote\nk: 3\n", "fusion.yaml: vote: 'k': expected 0 to 2, found 3"),
        ("method: mean\nthresholds: {cup: 0.4}\n", "fusion.yaml: mean: expected classes or"),
    ],
)
def test_a_config_that_does_not_fit_is_named(zoo, hands, tmp_path, capsys, text, said):
    config = tmp_path / "fusion.yaml"
    config.write_text(text, encoding="utf-8")
    given = hands / "a.csv", hands / "b.csv", "--data", hands / "data", "--config", config
    zoo("report", *given, "--out", tmp_path / "never", code=2)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
    assert [path.name for path in tmp_path.iterdir()] == ["fusion.yaml"]


CELLS = LabelSpace("cells", ("cell",))


def test_objects_are_measured_one_by_one_where_an_image_has_several():
    two = (Instance("cell", box(10, 10, 29, 29)), Instance("cell", box(30, 10, 49, 29)))
    sample = Sample("a", Path("a.png"), (60, 80), two)
    boxes = [CropMask(x, 10, np.full((20, 20), 255, np.uint8)) for x in (10, 30)]
    apart = tuple((0.9, SoftMask(tuple(map(float, m.box_xywh)), m.pixels)) for m in boxes)
    whole = ((0.9, SoftMask((10.0, 10.0, 40.0, 20.0), np.full((20, 40), 255, np.uint8))),)
    sources = (
        Heard("detector", (Prediction("a", (60, 80), "instance", {"cell": apart}),)),
        Heard("plain", (Prediction("a", (60, 80), "semantic", {"cell": whole}),)),
    )
    together = Ensemble(sources, CELLS, {"a": (60, 80, "a.png")})
    found = measuring.measure(together, {"mean": Mean()}, {"a": sample}, quiet)
    quality = {e.name: e.scores.pq() for e in found.entries}
    # The plain mask shows one object; the fused one is divided as the detector has it.
    assert quality == {"detector": 1.0, "plain": 0.0, "mean": 1.0}
    table = score_table(found.entries, CELLS)
    assert table.columns == ("all", "PQ")
    assert [row.cells[1].value for row in table.rows] == [1.0, 0.0, 1.0]
