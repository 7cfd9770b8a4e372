"""The audit's page: what it shows of each finding, and that it needs nothing else."""

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from shapely.geometry import MultiPolygon, Polygon, box

from converters.audit.findings import KINDS, Finding
from converters.describe import describe
from converters.pictures import drawing
from converters.pictures.colors import class_colors
from converters.types import Instance, LabelSpace, Sample
from zoo.report import pictures, plots
from zoo.report.audit import pictures as audit_pictures
from zoo.report.audit.description import sections_of
from zoo.report.audit.page import edit_text, headline, rank, write_audit

SIZE = (240, 330)  # not square
NAMES = ("shaft", "left one", "right-one", "<b>bold</b>")
LABELS = LabelSpace("toy", NAMES)
OUTLINES = {
    "shaft": box(30, 150, 80, 300),  # runs out of the image
    "left one": box(150, 80, 200, 110),
    "right-one": Polygon([(190, 70), (240, 120), (240, 70), (190, 120)]),  # crosses itself
    "<b>bold</b>": MultiPolygon([box(180, 125, 200, 150), box(10, 10, 20, 20)]),
}


def draw(folder, number, **attributes):
    path = folder / f"image_{number}.png"
    grey = np.random.default_rng(number).integers(40, 160, SIZE, np.uint8)
    cv2.imwrite(str(path), grey)
    bones = tuple(Instance(name, outline) for name, outline in OUTLINES.items())
    return Sample(f"a_b/image_{number}", path, SIZE, bones, f"P{number // 2}", attributes)


@pytest.fixture
def samples(tmp_path):
    return [draw(tmp_path, n, age=30 + n, sex="FM"[n % 2]) for n in range(4)]


def finding(kind="swapped", key="a_b/image_0", score=0.5, **more):
    return Finding(kind, key, more.pop("what", f"what of {kind}"), score, **more)


def page_of(tmp_path, samples, findings, **more):
    out = tmp_path / "out" / "report.html"
    write_audit(
        out,
        title="A & B",
        findings=findings,
        samples=samples,
        labels=LABELS,
        facts=[("Images", "<4")],
        **more,
    )
    return out.read_text(encoding="utf-8")


def test_what_is_not_looked_for_is_said(tmp_path, monkeypatch):
    several = page_of(tmp_path, [], [])
    assert several.count("not looked for: a class may occur several times") == 2
    monkeypatch.setitem(page_of.__globals__, "LABELS", replace(LABELS, once=True))
    assert "not looked for" not in page_of(tmp_path, [], [])


class Page(HTMLParser):
    """Collects tags that stay open, images, identifiers, and cells of tables."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.names, self.rows = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if "id" in found:
            self.names.append(found["id"])
        if tag == "img":
            self.images.append(found)
        if tag == "tr":
            self.rows.append([])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_data(self, data):
        if data.strip() and self.rows and {"td", "th"} & set(self.open[-2:]):
            self.rows[-1].append(data.strip())

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def one_of_each(samples):
    labels = {"outside": ("shaft",), "crossing": ("right-one",), "missing": ("<b>bold</b>",)}
    return [
        finding(kind, samples[n % 4].key, n / len(KINDS), labels=labels.get(kind, ("left one",)))
        for n, kind in enumerate(KINDS, 1)
    ]


@pytest.mark.slow
def test_page_needs_nothing_else(tmp_path, samples):
    description = describe(samples, LABELS)
    page = page_of(tmp_path, samples, one_of_each(samples), description=description)
    words = re.sub(r"base64,[\w+/=]*", "base64,", page)
    assert not re.search(r"//|@import|<link|<script|url\((?!#)|file:", words)
    assert str(tmp_path) not in page


@pytest.mark.slow
def test_page_is_well_formed(tmp_path, samples):
    description = describe(samples, LABELS)
    page = Page(page_of(tmp_path, samples, one_of_each(samples), description=description))
    assert page.open == []
    assert all(image["alt"] for image in page.images)
    assert len(page.names) == len(set(page.names))


@pytest.mark.slow
def test_words_of_the_data_are_escaped(tmp_path, samples):
    shown = finding(labels=("<b>bold</b>",), what="<i>found</i>", edit={"drop": {"label": "<u>"}})
    page = page_of(tmp_path, samples, [shown], description=describe(samples, LABELS))
    assert not re.search("<b>bold|<i>|<u>", page)
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "A &amp; B" in page
    assert "&lt;4" in page


def test_summary_counts_findings_and_images(tmp_path, samples):
    found = [finding(), finding(score=0.93), finding(key="a_b/image_1"), finding("tiny")]
    rows = Page(page_of(tmp_path, samples, found)).rows
    assert ["swapped", KINDS["swapped"], "3", "2", "0.93"] in rows
    assert ["tiny", KINDS["tiny"], "1", "1", "0.50"] in rows
    assert ["double", KINDS["double"], "0", "–", "–"] in rows  # noqa: RUF001


def test_nothing_found(tmp_path, samples):
    page = page_of(tmp_path, samples, [])
    assert "Nothing looks wrong in 4 images." in page
    assert Page(page).images == []


def test_headline_counts_images_that_could_not_be_read(samples):
    found = [finding("unreadable", "a_b/gone"), finding("unreadable", "")]
    assert headline(found, samples) == "2 findings in 1 of 5 images."


def test_the_surest_come_first(tmp_path, samples):
    found = [finding(score=s, what=f"score {s}") for s in (0.2, 0.9, 0.5)]
    assert [f.score for f in rank(found)] == [0.9, 0.5, 0.2]
    page = page_of(tmp_path, samples, found)
    assert page.index("score 0.9") < page.index("score 0.5") < page.index("score 0.2")


def test_pictures_are_limited_and_the_rest_are_rows(tmp_path, samples):
    found = [finding(score=n / 10, what=f"number {n}") for n in range(5)]
    done = []
    page = Page(page_of(tmp_path, samples, found, pictured=2, progress=lambda *d: done.append(d)))
    assert [image["alt"] for image in page.images] == [f"a_b/image_0: number {n}" for n in (4, 3)]
    assert [row[2] for row in page.rows if "number" in row[-1]] == [
        f"number {n}" for n in (2, 1, 0)
    ]
    assert done == [(1, 2), (2, 2)]


def test_an_unreadable_image_has_a_line(tmp_path, samples):
    samples[0].image.write_bytes(b"\x89PNG no more")
    found = [finding("unreadable"), finding("unreadable", "a_b/gone"), finding("unreadable", "")]
    page = Page(page_of(tmp_path, samples, found))
    assert page.images == []
    keys = [row[1] for row in page.rows if "what of unreadable" in row]
    assert keys == ["–", "a_b/gone", "a_b/image_0"]  # noqa: RUF001


def test_twins_are_side_by_side(tmp_path, samples):
    found = [finding("duplicate", others=("a_b/image_3", "a_b/image_2", "a_b/gone"))]
    text = page_of(tmp_path, samples, found)
    alts = [image["alt"].partition(":")[0] for image in Page(text).images]
    assert alts == ["a_b/image_0", "a_b/image_3"]
    assert "a_b/gone" in text


def test_a_twin_that_cannot_be_read_has_no_picture(tmp_path, samples):
    samples[3].image.unlink()
    found = [finding("duplicate", others=("a_b/image_3",))]
    text = page_of(tmp_path, samples, found)
    assert len(Page(text).images) == 1
    assert "a_b/image_3" in text


@pytest.mark.slow
def test_page_stays_small(tmp_path):
    big = draw(tmp_path, 0)
    cv2.imwrite(str(big.image), np.random.default_rng(0).integers(0, 255, SIZE, np.uint8))
    found = [finding(score=n / 40) for n in range(40)]
    assert len(page_of(tmp_path, [big], found)) < 24 * 250_000


# --- the proposed correction


def test_correction_is_a_piece_of_an_edits_file():
    entry = {"key": "a_b/image_0", "labels": ["left one", "right-one"], "why": "음"}
    text = edit_text(finding(edit={"swap_labels": entry}))
    assert yaml.safe_load(text) == {"swap_labels": [entry]}
    assert "음" in text


def test_long_corrections_are_cut():
    points = [[i, i * i] for i in range(50)]
    text = edit_text(finding(edit={"replace": {"key": "k", "label": "l", "polygons": [points]}}))
    assert len(text.splitlines()) == 11
    assert re.search(r"# and \d+ more lines$", text)


def test_no_correction():
    assert edit_text(finding()) == ""


# --- where the pictures look


@pytest.mark.parametrize(
    ("box_xywh", "expected"),
    [
        (None, (0, -45, 330, 330)),
        ((100, 80, 60, 40), (82, 52, 96, 96)),
        ((150, 100, 1, 1), (114, 64, 73, 73)),  # not nearer than a part of the image
        ((0, 0, 60, 40), (0, 0, 96, 96)),  # moved into the image
        ((280, 210, 50, 30), (250, 160, 80, 80)),
        ((30, 150, 50, 150), (0, 60, 240, 240)),  # leaves the image below
        ((-20, 100, 40, 40), (-20, 83, 73, 73)),  # and at the left
    ],
)
def test_view(box_xywh, expected):
    view = pictures.view_around(box_xywh, SIZE)
    x, y, width, height = view.box_xywh
    assert (x, y, width, height) == pytest.approx(expected, abs=1)
    assert width == height
    if box_xywh:
        left, top, wide, high = box_xywh
        assert x <= left
        assert y <= top
        assert x + width >= left + wide
        assert y + height >= top + high


def drawn(sample, view, colors):
    ground = np.zeros((*view.size_hw, 3), np.float32)
    return audit_pictures.draw_outlines(ground, sample, view, colors)


def whole(scale=1):
    return drawing.View((0, 0, SIZE[1], SIZE[0]), (SIZE[0] * scale, SIZE[1] * scale))


def test_concerned_bones_are_coloured_and_others_muted(samples):
    picture = drawn(samples[0], whole(), {"left one": (255, 0, 0)})
    assert picture[95, 150, 0] > 0.9  # on its outline
    assert 0.15 < picture[90, 170, 0] < 0.3  # inside
    assert picture[90, 170, 1] == 0
    muted = picture[200, 30]
    assert muted.min() > 0.3
    assert not picture[220, 55].any()  # inside another bone


def test_outlines_show_crossings(samples):
    picture = drawn(samples[0], whole(), {"right-one": (255, 0, 0)})
    # Both diagonals meet in the middle; the pixels' mask would only touch there.
    for step in (-8, 8):
        assert picture[95 + step, 215 + step, 0] > 0.5
        assert picture[95 + step, 215 - step, 0] > 0.5


def test_outlines_beyond_the_border_are_drawn(samples):
    view = drawing.View((0, 100, 220, 220), (220, 220))
    picture = drawn(samples[0], view, {"shaft": (255, 0, 0)})
    assert picture[199, 31:80, 0].max() > 0.9  # its lower edge, 60 pixels below the image


def test_names_stand_near_their_bones_and_apart(samples):
    colors = class_colors(NAMES)
    tags = audit_pictures.place_tags(samples[0], whole(), colors)
    assert {tag.name for tag in tags} == set(NAMES)
    for i, a in enumerate(tags):
        assert a.width / 2 <= a.left <= 100 - a.width / 2
        assert 0 < a.top < 100
        for b in tags[i + 1 :]:
            side_by_side = abs(a.left - b.left) >= (a.width + b.width) / 2
            assert side_by_side or abs(a.top - b.top) >= audit_pictures.HEIGHT


def test_a_bone_out_of_the_view_has_no_name(samples):
    view = drawing.View((140, 60, 60, 60), (60, 60))
    tags = audit_pictures.place_tags(samples[0], view, {"shaft": (1, 2, 3), "left one": (3, 2, 1)})
    assert [tag.name for tag in tags] == ["left one"]


# --- the description


@pytest.mark.slow
def test_description_is_shown_where_given(tmp_path, samples):
    page = page_of(tmp_path, samples, [], description=describe(samples, LABELS))
    assert [s for s in ("Images", "Areas", "Overlaps", "Patients") if f">{s}</h3>" in page] == [
        *("Images", "Areas", "Overlaps", "Patients")
    ]
    assert "Posture" not in page  # this label space knows none
    assert "What the data set is like" not in page_of(tmp_path, samples, [])


def test_description_of_nothing():
    assert [s.name for s in sections_of(describe([], LABELS))] == ["images"]


def test_overlap_table_has_the_measured_pairs(samples):
    description = describe(samples, LABELS)
    table = next(s.table for s in sections_of(description) if s.name == "overlaps")
    first = table.rows[0]
    assert first[0] == "left one, right-one"
    assert first[1] == f"{description.iou[1][2]:.3f}"
    assert first[2] == f"{100 * description.shared[1][2]:.1f} %"
    assert first[3] == f"{100 * description.shared[2][1]:.1f} %"


def test_plots_use_the_pages_colours_and_letters():
    svg = plots.plot_counts({"F": 3, "<M>": 4}, "sex & more", "patients")
    assert svg.startswith("<svg")
    assert not re.search(r"font-family|xmlns|http|#0\d0\d0\d", svg)
    assert "var(--accent)" in svg
    assert "sex &amp; more" in svg
    assert "&lt;M&gt;" in svg


def test_plots_take_any_letters():
    names = ["반지", "$x_1$", "\\alpha"]
    svg = plots.plot_matrix(names, [[None, 0.5, 0.001], [0.4, None, None], [0, 1, None]])
    assert all(name in svg for name in names)
    said = re.findall(r">(\d?\.\d\d)<", svg)
    assert sorted(said) == [".40", ".50", "1.00"]


def test_plots_are_the_same_every_time():
    rows = {"a": [1, 2, 3, 4, 5, 6, 7], "b": [1, 1, 1, 1, 1, 1, 1]}
    assert plots.plot_ranges(rows, "x") == plots.plot_ranges(rows, "x")


def test_plots_leave_matplotlib_as_it_was():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    plots.plot_counts({"F": 3}, "sex", "patients")
    assert dict(mpl.rcParams) == before


def test_pictures_are_jpegs_of_the_size_that_is_said(tmp_path, samples):
    image = Page(page_of(tmp_path, samples, [finding(labels=("left one",))])).images[0]
    content = base64.b64decode(image["src"].partition("base64,")[2])
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape == (int(image["height"]), int(image["width"]), 3)


def test_what_became_pixels_is_drawn_as_in_its_file():
    # Pixels end at the border of the image, the polygon of the file does not.
    pixels, drawn = box(200, 50, SIZE[1] - 1, 100), box(200, 50, SIZE[1] + 40, 100)
    view = drawing.View((100, 0, 230, 230), (230, 230))
    image, color = np.zeros((*view.size_hw, 3), np.float32), {"shaft": (255, 0, 0)}
    lines = []
    for own in ((), (np.array(drawn.exterior.coords),)):
        sample = Sample("a", Path("a.png"), SIZE, [Instance("shaft", pixels, own)])
        lines.append(audit_pictures.draw_outlines(image, sample, view, color)[75, -1, 0])
    assert lines[0] > 0.9
    assert lines[1] == pytest.approx(audit_pictures.FILL, abs=0.02)
