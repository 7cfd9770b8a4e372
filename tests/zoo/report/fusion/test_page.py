"""The report: what it says, what it shows, and that it needs nothing else."""

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from shapely import affinity
from shapely.geometry import Point

from converters.masks import EMPTY, crop, rasterize_labels
from converters.pictures import colors, drawing
from converters.types import Frame, Instance, LabelSpace, Sample
from fusion.metrics.scores import Counts, ImageScore, ObjectMatches, Scores, score_image
from zoo.report import pictures
from zoo.report.fusion import tables
from zoo.report.fusion.entries import ReportCase, ReportEntry, worst_and_median
from zoo.report.fusion.page import write_report

SIZE = (240, 330)  # not square
NAMES = ("shaft", "left one", "right-one", "<b>bold</b>")
LABELS = LabelSpace("toy", NAMES, {"wrist": ("left one", "right-one", "<b>bold</b>")})
PLAIN = LabelSpace("plain", NAMES)


def ellipse(x, y, a, b):
    return affinity.translate(affinity.scale(Point(0, 0).buffer(1), a, b), x, y)


OUTLINES = {
    "shaft": ellipse(60, 190, 40, 60),
    "left one": ellipse(180, 90, 32, 24),
    "right-one": ellipse(220, 95, 30, 26),
    "<b>bold</b>": ellipse(190, 130, 25, 18),
}


@pytest.fixture
def sample(tmp_path):
    path = tmp_path / "images" / "a_b" / "image_1.png"
    path.parent.mkdir(parents=True)
    grey = np.random.default_rng(0).integers(40, 160, SIZE, np.uint8)
    cv2.imwrite(str(path), grey)
    instances = tuple(Instance(name, outline) for name, outline in OUTLINES.items())
    return Sample("a_b/image_1", path, SIZE, instances)


def moved(sample, shift_px, without=()):
    masks = {}
    for name, mask in rasterize_labels(sample.instances, sample.size_hw).items():
        if name not in without:
            masks[name] = crop(np.roll(mask.full(sample.size_hw), shift_px, axis=1))
    return masks


def constant(value, labels=LABELS, images=3):
    return Scores(
        labels,
        [ImageScore(f"image_{i}", dict.fromkeys(labels.names, value), {}) for i in range(images)],
    )


def entries_of(**values):
    kinds = {"mean": "rule", "vote": "rule", "hybrid": "rule"}
    return [ReportEntry(n, kinds.get(n, "source"), constant(v)) for n, v in values.items()]


def drawn_entries(sample, labels, masks):
    truth = rasterize_labels(sample.instances, sample.size_hw)
    return [
        ReportEntry(
            name,
            "rule" if name == "hybrid" else "source",
            Scores(labels, [score_image(sample.key, found, truth, labels)]),
            note=f"note of {name}",
        )
        for name, found in masks.items()
    ]


def report(tmp_path, sample, labels=LABELS, masks=None, **case):
    masks = masks or {"smp": moved(sample, 9), "hybrid": moved(sample, 3)}
    out = tmp_path / "out" / "report.html"
    write_report(
        out,
        title="A & B",
        entries=drawn_entries(sample, labels, masks),
        cases=[ReportCase("Worst wrist", sample.key, "lowest", sample, masks, **case)],
        labels=labels,
        facts=[("Images", "1"), ("Peak memory", "<1 GB")],
    )
    return out.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Collects tags that stay open, images, and header cells without a scope."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.bare_headers = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag == "img":
            self.images.append(found)
        if tag == "th" and "scope" not in found:
            self.bare_headers.append(found)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


# --- the page


@pytest.mark.slow
def test_page_needs_nothing_else(tmp_path, sample):
    page = report(tmp_path, sample)
    words = re.sub(r"base64,[\w+/=]*", "base64,", page)
    assert not re.search(r"//|@import|<link|<script|url\(|file:", words)
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in Page(page).images)
    assert str(tmp_path) not in page


@pytest.mark.slow
def test_page_is_well_formed_and_accessible(tmp_path, sample):
    page = Page(report(tmp_path, sample))
    assert page.open == []
    assert page.bare_headers == []
    assert len(page.images) == 2 + 2 * 2
    assert all(image["alt"] for image in page.images)


@pytest.mark.slow
def test_names_are_escaped(tmp_path, sample):
    page = report(tmp_path, sample)
    assert "<b>bold</b>" not in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "A &amp; B" in page
    assert "&lt;1 GB" in page


@pytest.mark.slow
def test_nothing_unfinished_is_left(tmp_path, sample):
    report(tmp_path, sample)
    report(tmp_path, sample)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.html"]


@pytest.mark.slow
def test_label_space_without_groups(tmp_path, sample):
    page = report(tmp_path, sample, PLAIN)
    heads = re.findall(r'<th scope="col"[^>]*>(\w[\w ,]*)', page)
    assert heads[:4] == ["Entry", "all", "shared pixels", "shared, pooled"]
    assert '<th scope="rowgroup"' not in page


@pytest.mark.slow
def test_missing_masks_and_entries(tmp_path, sample):
    masks = {"smp": moved(sample, 4, without=("left one", "shaft")), "hybrid": {"shaft": EMPTY}}
    assert len(Page(report(tmp_path, sample, masks=masks)).images) == 6
    entries = drawn_entries(sample, LABELS, masks)
    case = ReportCase("Worst", sample.key, "", sample, {"hybrid": masks["hybrid"]})
    out = tmp_path / "one.html"
    write_report(out, title="t", entries=entries, cases=[case], labels=LABELS, facts=[])
    assert len(Page(out.read_text(encoding="utf-8")).images) == 4


@pytest.mark.slow
def test_dice_of_a_case_is_of_the_masks_shown(tmp_path, sample):
    masks = {"smp": moved(sample, 9), "hybrid": moved(sample, 0)}
    page = report(tmp_path, sample, masks=masks)
    assert page.count("<dt>wrist</dt><dd>1.0000</dd>") == 1


def test_an_image_of_another_size_is_refused(tmp_path, sample):
    cv2.imwrite(str(sample.image), np.zeros((330, 240), np.uint8))
    with pytest.raises(ValueError, match=r"expected \(240, 330\), found \(330, 240\)"):
        report(tmp_path, sample)


def test_an_image_that_is_not_there_is_refused(tmp_path, sample):
    sample.image.unlink()
    with pytest.raises(ValueError, match="expected an image"):
        report(tmp_path, sample)


# --- entries and cases that do not fit together


def refuse(match, entries, cases=(), labels=LABELS, *, out):
    with pytest.raises(ValueError, match=match):
        write_report(out, title="t", entries=entries, cases=cases, labels=labels, facts=[])
    assert not out.exists()


def test_entries_that_do_not_fit_are_refused(tmp_path, sample):
    out = tmp_path / "report.html"
    one, two = entries_of(a=0.5, b=0.6)
    refuse("at least one entry", [], out=out)
    refuse("twice", [one, one], out=out)
    refuse("classes", [one], labels=LabelSpace("other", ("x",)), out=out)
    refuse("'image_2'", [one, ReportEntry("b", "source", constant(0.5, images=2))], out=out)
    refuse("found \\['c'\\]", [one, two], [ReportCase("", "k", "", sample, {"c": {}})], out=out)


def test_kind_is_checked():
    with pytest.raises(ValueError, match="source or rule"):
        ReportEntry("a", "model", constant(0.5))


# --- the headline


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"smp": 0.905, "yolo": 0.88, "mean": 0.908, "hybrid": 0.912},
            "hybrid 0.9120 is 0.0070 above the best single source, smp 0.9050; "
            "the best other rule, mean, has 0.9080.",
        ),
        (
            {"smp": 0.905, "hybrid": 0.901},
            "hybrid 0.9010 is not better than the best single source: smp has 0.9050, 0.0040 more.",
        ),
        (
            {"smp": 0.9, "hybrid": 0.90004},
            "hybrid 0.9000 only equals the best single source, smp.",
        ),
        (
            {"smp": 0.9, "vote": 0.95, "hybrid": 0.92},
            "hybrid 0.9200 is 0.0200 above the best single source, smp 0.9000; "
            "the rule vote is above hybrid, with 0.9500.",
        ),
        (
            {"smp": 0.9, "mean": 0.95},
            "mean 0.9500 is 0.0500 above the best single source, smp 0.9000.",
        ),
        ({"smp": 0.9, "yolo": 0.8}, "smp has a mean Dice of 0.9000, the most of 2 sources."),
        ({"hybrid": 0.9}, "hybrid has a mean Dice of 0.9000."),
    ],
)
def test_headline_is_honest(values, said):
    assert tables.headline(entries_of(**values)) == said


def test_remarks_name_the_columns_where_the_fusion_loses():
    low = {"shaft": 0.8, "left one": 0.9, "right-one": 0.9, "<b>bold</b>": 0.9}
    high = {"shaft": 0.99, "left one": 0.89, "right-one": 0.89, "<b>bold</b>": 0.89}
    whole = dict.fromkeys(NAMES, Counts(10, 10, 10))
    image = {"shaft": Counts(5, 10, 10)}, {"shaft": Counts(6, 10, 10)}
    smp = ReportEntry("smp", "source", Scores(LABELS, [ImageScore("i", low, image[0], whole)]))
    hybrid = ReportEntry("hybrid", "rule", Scores(LABELS, [ImageScore("i", high, image[1], whole)]))
    first, shared, second = tables.remarks([smp, hybrid], LABELS)
    assert "above it on shared pixels (+0.1000) and shared, pooled (+0.1000)" in first
    assert "+0.1000 [one patient] (shared pixels) and +0.1000 [one patient] (shared, po" in shared
    assert "hybrid minus smp" in shared
    assert "below it on wrist (\N{MINUS SIGN}0.0100)" in first
    assert "one image" in second


def test_remarks_say_when_the_images_do_not_tell_two_apart():
    def scores(values):
        return Scores(
            LABELS,
            [ImageScore(f"i{k}", dict.fromkeys(NAMES, v), {}) for k, v in enumerate(values)],
        )

    smp = ReportEntry("smp", "source", scores([0.9, 0.9, 0.9, 0.9]))
    noise = ReportEntry("hybrid", "rule", scores([0.99, 0.82, 0.99, 0.82]))
    steady = ReportEntry("hybrid", "rule", scores([0.95, 0.96, 0.95, 0.96]))
    assert "do not tell the two apart" in tables.remarks([smp, noise], LABELS)[-1]
    assert "above smp on 2 of 4 and below on 2" in tables.remarks([smp, noise], LABELS)[-1]
    assert "do not" not in tables.remarks([smp, steady], LABELS)[-1]


# --- the tables


def test_score_table_marks_best_and_differences():
    table = tables.score_table(entries_of(smp=0.9, yolo=0.8, hybrid=0.95), LABELS)
    assert table.columns == ("all", "wrist", "shared pixels", "shared, pooled")
    alone = replace(LABELS, exclusive="large_first")
    entries = [ReportEntry("smp", "source", constant(0.9, alone))]
    assert tables.score_table(entries, alone).columns == ("all", "wrist")
    smp, yolo, hybrid = (row.cells[0] for row in table.rows)
    assert (smp.best, smp.best_source, smp.delta) == (False, True, None)
    assert (yolo.best_source, round(yolo.delta, 6)) == (False, -0.1)
    assert (hybrid.best, round(hybrid.delta, 6)) == (True, 0.05)
    assert -1 <= yolo.tint < 0 < hybrid.tint <= 1
    assert table.rows[0].cells[2].value is None


def test_class_table_has_every_class_once():
    for labels in (LABELS, PLAIN):
        entries = [ReportEntry("smp", "source", constant(0.9, labels))]
        sections = tables.class_table(entries, labels).sections
        assert sorted(row.name for _, rows in sections for row in rows) == sorted(NAMES)


# --- which images to show


def ranked(values, name="left one"):
    images = [
        ImageScore(f"image_{i}", {**dict.fromkeys(NAMES, 0.5), name: v}, {})
        for i, v in enumerate(values)
    ]
    return Scores(LABELS, images)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([0.9, 0.2, 0.7], ("image_1", "image_2")),
        ([0.9, 0.2], ("image_1", "image_0")),
        ([0.4], ("image_0", "image_0")),
        ([0.5, 0.5, 0.5], ("image_0", "image_1")),
    ],
)
def test_worst_and_median(values, found):
    assert worst_and_median(ranked(values), "wrist") == found
    assert worst_and_median(ranked(values), None) == found


def test_the_worst_of_several_objects_is_that_of_the_lowest_pq():
    # The Dice of the first is the lowest, of the last two cells of four became one.
    matches = (
        ObjectMatches(4, 4, (0.7,) * 4),
        ObjectMatches(1, 1, (0.9,)),
        ObjectMatches(4, 3, (0.9, 0.9)),
    )
    plain = ranked([0.2, 0.9, 0.9]).images
    several = [replace(i, objects={"left one": m}) for i, m in zip(plain, matches, strict=True)]
    assert worst_and_median(Scores(LABELS, several), None) == ("image_2", "image_0")
    once = [ObjectMatches(1, 1, (iou,)) for iou in (0.9, 0.8, 0.6)]
    alone = [replace(i, objects={"left one": m}) for i, m in zip(plain, once, strict=True)]
    assert worst_and_median(Scores(LABELS, alone), None) == ("image_0", "image_1")


def test_worst_looks_at_the_group_alone():
    assert worst_and_median(ranked([0.9, 0.2, 0.7], "shaft"), "wrist") == ("image_0", "image_1")


def test_an_unknown_group_is_refused():
    with pytest.raises(ValueError, match="expected a group of wrist"):
        worst_and_median(ranked([0.5]), "carpals")


# --- the pictures


def test_view_holds_the_group_and_stays_inside(sample):
    truth = rasterize_labels(sample.instances, sample.size_hw)
    for names in (LABELS.groups["wrist"], ("shaft",), NAMES):
        view = pictures.view_of([truth[n] for n in names], SIZE)
        x, y, width, height = view.box_xywh
        assert x >= 0
        assert y >= 0
        assert x + width <= SIZE[1]
        assert y + height <= SIZE[0]
        for name in names:
            assert truth[name].window(view.box_xywh).sum() == truth[name].area
        height_px, width_px = view.size_hw
        assert abs(width_px / height_px - width / height) < 0.02


@pytest.mark.parametrize("size", [(40, 400), (400, 40), (2, 3)])
def test_view_of_nothing_is_the_image(size):
    view = pictures.view_of([EMPTY], size)
    assert view.box_xywh == (0, 0, size[1], size[0])


def test_focus_is_on_the_group_that_overlaps(sample):
    truth = rasterize_labels(sample.instances, sample.size_hw)
    assert pictures.focus_group(truth, LABELS) == "wrist"
    assert pictures.focus_group(truth, PLAIN) is None
    assert pictures.focus_group({"shaft": truth["shaft"]}, LABELS) is None


def test_colors_are_distinct_and_fixed():
    names = [f"class_{i}" for i in range(30)]
    found = colors.class_colors(names)
    assert len(set(found.values())) == 30
    assert colors.class_colors(names[:8]) == {n: found[n] for n in names[:8]}


def test_overlap_shows_both_colours(sample):
    masks = moved(sample, 0)
    view = drawing.View((0, 0, SIZE[1], SIZE[0]), SIZE)
    black = np.zeros((*SIZE, 3), np.float32)
    colors = {"left one": (255, 0, 0), "right-one": (0, 255, 0)}
    picture = drawing.draw_masks(black, {n: masks[n] for n in colors}, view, colors)
    both = (masks["left one"].full(SIZE) & masks["right-one"].full(SIZE)) > 0
    inner = cv2.erode(both.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    red, green = picture[inner][:, 0] > 0.5, picture[inner][:, 1] > 0.5
    assert 0.3 < red.mean() < 0.7
    assert (red ^ green).all()


def test_difference_tells_hit_missed_and_false(sample):
    view = drawing.View((0, 0, SIZE[1], SIZE[0]), SIZE)
    truth = {"shaft": moved(sample, 0)["shaft"]}
    found = {"shaft": moved(sample, 20)["shaft"]}
    picture = pictures.draw_difference(np.zeros((*SIZE, 3), np.float32), found, truth, view)
    true, drawn = truth["shaft"].full(SIZE) > 0, found["shaft"].full(SIZE) > 0
    for where, color, strength in (
        (true & drawn, colors.HIT, 0.34),
        (true & ~drawn, colors.MISSED, 0.95),
        (drawn & ~true, colors.FALSE, 0.95),
        (~drawn & ~true, (0, 0, 0), 1),
    ):
        expected = np.array(color) / 255 * strength
        assert np.allclose(picture[where], expected, atol=1e-5)


@pytest.mark.parametrize("scale", [0.5, 1, 3])
def test_coverage_keeps_the_area(sample, scale):
    mask = moved(sample, 0)["shaft"]
    size_hw = (round(SIZE[0] * scale), round(SIZE[1] * scale))
    alpha = drawing.coverage(mask, drawing.View((0, 0, SIZE[1], SIZE[0]), size_hw))
    assert alpha.sum() == pytest.approx(mask.area * scale**2, rel=0.01)


def test_numbers_stand_inside_their_class(sample):
    truth = rasterize_labels(sample.instances, sample.size_hw)
    view = pictures.view_of(list(truth.values()), SIZE)
    x, y, width, height = view.box_xywh
    points = pictures.label_points(truth, NAMES, view)
    assert set(points) == set(NAMES)
    for name, (left, top) in points.items():
        row, column = int(y + top * height / 100), int(x + left * width / 100)
        assert truth[name].full(SIZE)[row, column] == 1


def test_pale_images_are_stretched(sample):
    pale = np.random.default_rng(0).integers(100, 130, SIZE, np.uint8)
    cv2.imwrite(str(sample.image), pale)
    picture = drawing.read_view(sample, drawing.View((0, 0, SIZE[1], SIZE[0]), SIZE))
    assert picture.min() == 0
    assert picture.max() == 1


def test_a_view_beyond_the_image_is_black_there(sample):
    inside = drawing.read_view(sample, drawing.View((0, 0, 40, 30), (30, 40)))
    beyond = drawing.read_view(sample, drawing.View((-8, -5, 48, 35), (35, 48)))
    assert np.array_equal(beyond[5:, 8:], inside)
    assert not beyond[:5].any()
    assert not beyond[:, :8].any()


def test_a_crop_is_shown_at_its_own_size(sample):
    frame = Frame((30, 20, 100, 80), SIZE, is_stored=False)
    crop_of = replace(sample, size_hw=(160, 200), frame=frame)
    picture = drawing.read_view(crop_of, drawing.View((0, 0, 200, 160), (160, 200)))
    whole = drawing.read_view(sample, drawing.View((30, 20, 100, 80), (80, 100)))
    small = cv2.resize(picture, (100, 80), interpolation=cv2.INTER_AREA)
    assert np.corrcoef(small.ravel(), whole.ravel())[0, 1] > 0.9


def test_jpeg_is_what_was_drawn():
    picture = np.zeros((16, 24, 3), np.float32)
    picture[..., 0] = 1
    data = base64.b64decode(drawing.encode_jpeg(picture).partition(",")[2])
    back = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert back.shape == (16, 24, 3)
    assert back[8, 12, 2] > 240
    assert back[8, 12, 0] < 15
