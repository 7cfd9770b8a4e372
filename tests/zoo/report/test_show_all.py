"""Tables that are cut open whole without a script, and are whole on paper; in a real browser."""

import re
import shutil
import subprocess

import pytest

from converters.audit.findings import Finding
from converters.types import LabelSpace
from zoo.report.audit import page as audit_page
from zoo.report.compare import page as compare_page
from zoo.report.fusion import breakdown
from zoo.report.templates import MOST_ROWS, render
from zoo.results.disagreement import Disagreement, MaskPair

LABELS = LabelSpace("toy", ("cup", "plate"))


def compared(images):
    pairs = [
        MaskPair(f"image-{i:04d}", name, 100, i + 1, 0, (1, 2, 3, 4))
        for i in range(images)
        for name in LABELS.names
    ]
    return Disagreement(("a", "b"), LABELS, tuple(pairs))


@pytest.fixture
def compare(tmp_path):
    def write(images):
        out = tmp_path / "compare.html"
        compare_page.write_comparison(out, found=compared(images), drawn=(), facts=())
        return out

    return write


def audited(tmp_path):
    ring = [[i, i % 7] for i in range(80)]
    edit = {"replace": {"key": "k", "label": "cup", "polygons": [ring]}}
    findings = [
        Finding("double", f"k{i:03d}", "two <b>", 1 - i / 1000, edit=edit) for i in range(60)
    ]
    out = tmp_path / "audit.html"
    audit_page.write_audit(out, title="t", findings=findings, samples=(), labels=LABELS, facts=())
    return out


def rows_in(page, heading):
    return page.locator(f"section[aria-labelledby={heading}] tbody tr")


def seen(locator):
    return locator.evaluate_all("rows => rows.filter(r => r.getClientRects().length).length")


@pytest.fixture
def opened(browser):
    """Return a function: open a page; scripts are off, so that nothing hangs on one."""
    contexts = []

    def open_page(path):
        contexts.append(browser.new_context(java_script_enabled=False, offline=True))
        page = contexts[-1].new_page()
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.slow
@pytest.mark.parametrize(("heading", "first", "all_of"), [("images", 20, 90), ("masks", 40, 180)])
def test_a_click_opens_the_whole_table(compare, opened, heading, first, all_of):
    page = opened(compare(90))
    rows = rows_in(page, heading)
    assert (rows.count(), seen(rows)) == (all_of, first)
    label = page.get_by_text(f"Show all {all_of} {heading}")
    assert label.is_visible()
    # It stands below what it opens.
    assert label.bounding_box()["y"] > rows.nth(first - 1).bounding_box()["y"]
    label.click()
    assert seen(rows) == all_of
    assert not label.is_visible()


@pytest.mark.slow
def test_the_keyboard_opens_it_too(compare, opened):
    page = opened(compare(90))
    page.locator("#all-masks").focus()
    page.keyboard.press("Space")
    assert seen(rows_in(page, "masks")) == 180
    assert seen(rows_in(page, "images")) == 20


@pytest.mark.slow
def test_paper_has_all_of_it(compare, opened, tmp_path):
    page = opened(compare(90))
    page.emulate_media(media="print")
    assert seen(rows_in(page, "images")) == 90
    assert seen(rows_in(page, "masks")) == 180
    assert not page.get_by_text("Show all").first.is_visible()
    pdf = tmp_path / "page.pdf"
    page.pdf(path=str(pdf))
    if shutil.which("pdftotext"):
        text = subprocess.run(
            ["pdftotext", str(pdf), "-"], capture_output=True, text=True, check=True
        ).stdout
        assert all(f"image-{i:04d}" in text for i in range(90))
    assert pdf.stat().st_size > 20_000


@pytest.mark.slow
def test_findings_and_long_corrections_open_too(tmp_path, opened):
    page = opened(audited(tmp_path))
    rows = page.locator(".rest tbody tr")
    assert (rows.count(), seen(rows)) == (60, 40)
    page.get_by_text("Show all 60 findings").click()
    assert seen(rows) == 60
    first = page.locator(".rest .edit").first
    short = first.inner_text().strip().splitlines()
    assert len(short) == audit_page.EDIT_LINES
    page.locator("label[for=all-double-row-1]").click()
    whole = first.inner_text().strip().splitlines()
    assert len(whole) > len(short)
    assert whole[: len(short)] == short
    assert "[79, 2]" in " ".join(whole)
    page.emulate_media(media="print")
    others = page.locator(".rest .edit").nth(5).inner_text().strip().splitlines()
    assert len(others) == len(whole)


def test_short_tables_have_no_switch(compare):
    text = compare(20).read_text(encoding="utf-8")
    assert "Show all" not in text
    assert 'class="beyond"' not in text


def test_switches_have_names_of_their_own_and_no_script(compare, tmp_path):
    for path in (compare(90), audited(tmp_path)):
        text = path.read_text(encoding="utf-8")
        switches = re.findall(r'<input class="unseen more" type="checkbox" id="([^"]+)"', text)
        assert len(switches) >= 2
        assert len(set(switches)) == len(switches)
        assert re.findall(r'<label class="more" for="([^"]+)"', text) == switches
        assert "<script" not in text
        assert not re.search(r'(src|href)="https?:', text)


def test_tens_of_thousands_of_rows_stay_in_the_file_beside(compare):
    text = compare(MOST_ROWS).read_text(encoding="utf-8")
    assert f"{MOST_ROWS:,} more are in compare.json" in text
    assert f"Show all {MOST_ROWS:,} masks" in text


def test_classes_that_are_mixed_up_are_all_there():
    mixed = [breakdown.Mixed("cup", f"plate-{i}", 99 - i, 0.5, 0.1, None) for i in range(30)]
    given = {"postures": None, "boxes": None, "shown": {"name": "mean"}, "source": None}
    text = render("fusion/breakdown.html", mixed=mixed, mixed_first=breakdown.PAIRS, **given)
    assert "Show all 30 pairs" in text
    assert text.count('<tr class="beyond">') == 30 - breakdown.PAIRS
    assert all(f"plate-{i}<" in text for i in range(30))
