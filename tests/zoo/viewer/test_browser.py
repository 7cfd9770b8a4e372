"""The page in a real browser: Chromium without a window, moved by Playwright."""

import re
import shutil
import time
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

import converters
from converters.audit.findings import Finding
from converters.edits.edits import Edits
from converters.files.json_files import dump_json
from converters.files.provenance import write_provenance
from converters.masks import EMPTY
from zoo.viewer.collection import Collection
from zoo.viewer.server import reserved_port, serving
from zoo.viewer.start import page_arguments

pytestmark = [pytest.mark.slow, pytest.mark.long]

WAIT_MS = 60_000
METRICS = "epoch,seconds,train_loss,val_dice,tile.1\n1,2,0.9,0.1,0.3\n2,4,0.7,0.4,0.5\n"


@pytest.fixture(scope="session")
def material(show, tmp_path_factory):
    """A run with curves and an audit with two findings, besides what is in `show`."""
    folder = tmp_path_factory.mktemp("beside")
    run = folder / "run"
    run.mkdir()
    (run / "config.yaml").write_text("family: smp\nepochs: 2\n")
    (run / "metrics.csv").write_text(METRICS)
    first, second, *_ = show.samples
    names = show.labels.names
    edit = {"drop": {"key": second, "label": names[2], "part": 0}}
    findings = [
        Finding(
            "double", second, "two of <b>them</b>", 0.9, (names[2],), (20, 30, 12, 9), edit=edit
        ),
        Finding("duplicate", first, "the same", 0.8, others=(second,)),
    ]
    audit = folder / "audit"
    audit.mkdir()
    records = [{**vars(finding)} for finding in findings]
    (audit / "findings.json").write_text(dump_json(records))
    return [*show.paths, run, audit]


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory):
    """A pipeline's folder: a step that is done, one that works, one that failed; and a run."""
    folder = tmp_path_factory.mktemp("pipelines") / "my_run"
    for name in ("steps", "logs", "runs/unet/fold-0"):
        (folder / name).mkdir(parents=True)
    write_provenance(folder, ["zoo", "run"], kind="pipeline")
    run = folder / "runs" / "unet" / "fold-0"
    (run / "config.yaml").write_text("family: smp\nepochs: 2\n")
    (run / "metrics.csv").write_text(METRICS)
    out = str(folder / "runs" / "unet")
    records = {
        "split": {"state": "done", "seconds": 2.0, "command": ["split", "data"]},
        "train-unet": {"state": "begun", "command": ["train", "smp", "--out", out]},
        "train-yolo": {"state": "failed", "seconds": 7200.0, "message": "no <b>room</b>"},
    }
    for name, record in records.items():
        (folder / "steps" / f"{name}.json").write_text(dump_json({"key": name, **record}))
    (folder / "logs" / "train-unet.log").write_text("$ zoo train\ntrain smp: 4/9, 0.2/s\n")
    (folder / "logs" / "train-yolo.log").write_text("first <i>\nOutOfMemoryError: no room\n")
    return folder


@pytest.fixture(scope="module")
def served(browser, show, material, pipeline, tmp_path_factory):
    """The port of a server, and its file of edits."""
    pytest.importorskip("streamlit")
    edits = tmp_path_factory.mktemp("edits") / "edits.yaml"
    given = [*material, pipeline]
    arguments = page_arguments(given, edits, labels_name=str(show.space), method="mean")
    with reserved_port() as port, serving(arguments, port):
        yield port, edits


@pytest.fixture
def page(browser, served):
    """A new page without corrections, in which no error may occur and nothing foreign be loaded."""
    port, edits = served
    edits.unlink(missing_ok=True)
    tab = browser.new_page(viewport={"width": 1400, "height": 1000})
    said, foreign = [], []
    tab.on("console", lambda m: said.append(m.text) if m.type == "error" else None)
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    own = re.compile(rf"(https?|ws)://127\.0\.0\.1:{port}/|data:|blob:|about:")
    tab.on("request", lambda r: None if own.match(r.url) else foreign.append(r.url))
    tab.set_default_timeout(WAIT_MS)
    tab.goto(f"http://127.0.0.1:{port}/")
    canvas = tab.frame_locator("iframe[title*=zoo_canvas]")
    shown = SimpleNamespace(tab=tab, canvas=canvas, edits=edits)
    wait_for_canvas(shown)
    yield shown
    tab.wait_for_timeout(300)
    tab.close()
    assert said == []
    assert foreign == []


def wait_for_canvas(page, key=None):
    # Of the view before, the canvas stays until the next one is drawn.
    until(lambda: page.tab.locator("iframe[title*=zoo_canvas]").count() == 1)
    page.canvas.locator("body[data-shown]").wait_for()
    if key is not None:
        page.canvas.locator(f"body[data-shown^='{key} ']").wait_for()


def captions(page):
    """What is written over the panes; nothing while one canvas takes the place of another."""
    from playwright.sync_api import Error

    try:
        return page.canvas.locator("figcaption").all_text_contents()
    except Error:
        return []


def shown_key(page):
    return page.canvas.locator("body").get_attribute("data-shown").partition(" ")[0]


def view(page, name):
    page.tab.get_by_test_id("stSidebar").get_by_text(name, exact=True).click()
    page.tab.wait_for_timeout(500)


def until(condition, seconds=60):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.05)


def collection(show, tmp_path):
    return Collection.open(
        show.paths, tmp_path / "none.yaml", labels_name=str(show.space), method="mean"
    )


def at_pixel(page, number, x, y, width, height):
    """Where a pixel's middle is on the screen, in a pane that shows the whole image."""
    box = page.canvas.locator("svg").nth(number).bounding_box()
    scale = min(box["width"] / width, box["height"] / height)
    left = box["x"] + (box["width"] - scale * width) / 2
    top = box["y"] + (box["height"] - scale * height) / 2
    return left + (x + 0.5) * scale, top + (y + 0.5) * scale


def test_images_are_drawn_with_names_as_they_are(page, show):
    captions = page.canvas.locator("figcaption").all_text_contents()
    assert captions == ["truth", "a", "b", "c", "fusion"]
    names = page.canvas.locator("#classes .class label").all_text_contents()
    assert names == list(show.labels.names)
    assert page.canvas.locator("img").count() == 0
    key = shown_key(page)
    height, width = show.samples[key].size_hw
    image = page.canvas.locator("svg image").first
    natural = image.evaluate(
        "async (e) => { const i = new Image(); i.src = e.href.baseVal; await i.decode();"
        " return [i.naturalHeight, i.naturalWidth]; }"
    )
    assert natural == [height, width]
    assert page.canvas.locator("g[data-layer=truth] g[data-class]").count() == 9


def test_errors_are_the_pixels_that_differ(page, show, tmp_path):
    page.tab.keyboard.press("e")
    shown = collection(show, tmp_path).show(shown_key(page))
    for layer in ("a", "c", "fusion"):
        for name in show.labels.names:
            group = page.canvas.locator(f"g[data-layer={layer}]").evaluate(
                "(e, name) => { const g = [...e.children].find(c => c.dataset.class === name);"
                " return g ? [Number(g.dataset.false), Number(g.dataset.missed)] : null; }",
                name,
            )
            if name not in shown.masks[layer]:
                assert group is None
                continue
            mask = shown.masks[layer][name].full(shown.size_hw)
            true = shown.truth.get(name, EMPTY).full(shown.size_hw)
            assert group == [int((mask & ~true & 1).sum()), int((true & ~mask & 1).sum())]
    assert page.canvas.locator("#legend").is_visible()


def test_what_sources_say_under_the_cursor(page, show, tmp_path):
    shown = collection(show, tmp_path).show(shown_key(page))
    height, width = shown.size_hw
    generator = np.random.default_rng(0)
    several = 0
    for y, x in generator.integers(8, (height - 8, width - 8), (8, 2)).tolist():
        page.tab.mouse.move(*at_pixel(page, 1, x, y, width, height))
        rows = page.canvas.locator("#readout tr").evaluate_all(
            "rows => rows.map(r => [...r.cells].map(c => c.textContent))"
        )
        assert rows[0] == [f"x {x}, y {y}", "truth", "a", "b", "c", "fusion"]
        for name, true, *said in rows[1:]:
            is_true = bool(shown.truth[name].full(shown.size_hw)[y, x])
            assert true == ("yes" if is_true else "\N{EN DASH}")
            for source, text in zip(("a", "b", "c", "fusion"), said, strict=True):
                evidence = shown.predictions[source].evidence(name, once=False)
                if text and evidence:
                    expected = evidence[1].render((x, y, 1, 1))[0, 0] / 255
                    assert float(text) == pytest.approx(expected, abs=0.025)
                    several += 1
    assert several > 10


def test_zoom_pan_classes_and_layers(page, show):
    canvas, tab = page.canvas, page.tab
    box = canvas.locator("svg").first.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    before = canvas.locator("svg").first.get_attribute("viewBox")
    tab.mouse.move(*middle)
    tab.mouse.wheel(0, -600)
    until(lambda: canvas.locator("svg").first.get_attribute("viewBox") != before)
    zoomed = [float(v) for v in canvas.locator("svg").first.get_attribute("viewBox").split()]
    assert zoomed[2] < float(before.split()[2])
    boxes = canvas.locator("svg").evaluate_all("all => all.map(s => s.getAttribute('viewBox'))")
    assert len(set(boxes)) == 1
    tab.mouse.down()
    tab.mouse.move(middle[0] + 40, middle[1] + 20, steps=4)
    tab.mouse.up()
    moved = [float(v) for v in canvas.locator("svg").first.get_attribute("viewBox").split()]
    assert moved[0] < zoomed[0]
    assert moved[1] < zoomed[1]
    tab.keyboard.press("0")
    until(lambda: canvas.locator("svg").first.get_attribute("viewBox") == before)
    assert canvas.locator("path.shared").count() > 0
    tab.keyboard.press("h")
    assert canvas.locator("path.shared").count() == 0
    assert canvas.locator("path[fill-opacity]").count() == 0
    tab.keyboard.press("f")
    assert canvas.locator("path[fill-opacity]").count() > 0
    canvas.locator("#classes .group", has_text="small").locator("input").uncheck()
    shown = canvas.locator("g[data-layer=truth] g[data-class]")
    assert [s.get_attribute("data-class") for s in shown.all()] == [show.odd]
    canvas.locator("#classes .class", has_text="tile-3").locator("input").check()
    assert shown.count() == 2
    canvas.locator("#layers button", has_text="fusion").click()
    assert canvas.locator("svg").count() == 4
    tab.keyboard.press("s")
    assert canvas.locator("svg").count() == 1


def test_the_keyboard_turns_pages(page, show):
    keys = list(show.samples)
    assert shown_key(page) == keys[0]
    for key in keys[1:]:
        page.tab.keyboard.press("ArrowRight")
        wait_for_canvas(page, key)
    page.tab.keyboard.press("ArrowLeft")
    wait_for_canvas(page, keys[-2])
    page.tab.get_by_role("button", name="▶").click()
    wait_for_canvas(page, keys[-1])


def test_lists_are_searched_and_sorted(page, show, tmp_path):
    opened = collection(show, tmp_path)
    rows = {key: opened.measure(key) for key in show.samples}
    worst = min(rows, key=lambda key: rows[key].mean_dice)
    # A list is sorted as far as it is measured.
    page.tab.wait_for_timeout(3000)
    until(lambda: page.tab.get_by_text(re.compile("^measured")).count() == 0)
    page.tab.get_by_role("combobox", name="Sort by").click()
    page.tab.get_by_role("option", name="Dice, worst first").click()
    wait_for_canvas(page, worst)
    page.tab.get_by_role("textbox", name="Search").fill(list(rows)[3].rpartition("/")[2])
    page.tab.keyboard.press("Enter")
    wait_for_canvas(page, list(rows)[3])
    page.tab.get_by_text("1 of 1").wait_for()
    page.tab.get_by_test_id("stSidebar").get_by_text("structures", exact=True).click()
    page.tab.get_by_text("1 of 9").wait_for()


def test_a_correction_is_made_on_the_canvas_and_taken_back(page, show):
    key = shown_key(page)
    before = {p: p.read_bytes() for p in show.data.rglob("*") if p.is_file()}
    sample = show.samples[key]
    tile = next(one for one in sample.instances if one.label == "tile-4")
    height, width = sample.size_hw
    centre = tile.geometry.centroid
    page.tab.mouse.click(*at_pixel(page, 0, centre.x, centre.y, width, height))
    page.canvas.locator("path.picked").first.wait_for()
    page.tab.get_by_text("Correct: tile-4, part 0").wait_for()
    page.tab.get_by_label("Why").fill("not a tile: it's <odd>")
    page.tab.keyboard.press("Enter")
    page.tab.get_by_role("button", name="Add to edits").click()
    until(page.edits.is_file)
    entry = {"key": key, "label": "tile-4", "why": "not a tile: it's <odd>"}
    assert yaml.safe_load(page.edits.read_text()) == {"version": 1, "drop": [entry]}
    layer = page.canvas.locator("g[data-layer=truth]")
    until(lambda: layer.locator("g[data-class=tile-4]").count() == 0)
    edits = Edits.load(page.edits)
    read = converters.read(show.data, labels=show.labels, edits=edits)
    assert "tile-4" not in {one.label for one in read[0].instances}
    view(page, "Corrections")
    page.tab.get_by_text("1 correction", exact=True).wait_for()
    page.tab.get_by_role("button", name="Undo").click()
    page.tab.get_by_text("0 corrections").wait_for()
    assert yaml.safe_load(page.edits.read_text()) == {"version": 1}
    assert {p: p.read_bytes() for p in before} == before


def test_what_does_not_fit_is_said_and_not_written(page, show):
    page.tab.get_by_text("Correct", exact=True).click()
    # What unfolds closes menus that are opened in it meanwhile.
    page.tab.wait_for_timeout(1000)
    page.tab.get_by_role("combobox", name="Correction").click()
    page.tab.get_by_role("option", name="exclude the image").click()
    page.tab.get_by_role("button", name="Add to edits").click()
    until(page.edits.is_file)
    page.tab.get_by_text("Correct (1 made)").wait_for()
    page.tab.wait_for_timeout(500)
    before = page.edits.read_bytes()
    page.tab.get_by_role("combobox", name="Correction").click()
    page.tab.get_by_role("option", name="drop").click()
    page.tab.get_by_role("button", name="Add to edits").click()
    page.tab.get_by_text("its image is excluded").wait_for()
    assert page.edits.read_bytes() == before


def test_the_numbers_of_a_list_come_before_long_names(page):
    page.tab.get_by_test_id("stSidebar").get_by_text("structures", exact=True).click()
    heads = page.tab.get_by_test_id("stDataFrame").locator("[role=columnheader]")
    until(lambda: "class" in heads.all_text_contents())
    texts = [text for text in heads.all_text_contents() if text.strip()]
    assert texts[:4] == ["class", "Dice", "differ", "image"]


def test_two_sources_beside_each_other(page):
    view(page, "Two sources")
    until(lambda: captions(page) == ["a", "b", "truth"])
    page.tab.get_by_text("Dice and errors of b against a").wait_for()


def test_findings_are_shown_where_they_are_and_mended(page, show):
    view(page, "Findings")
    said = page.tab.get_by_test_id("stMarkdownContainer").filter(has_text="two of <b>them</b>")
    said.first.wait_for()
    second = list(show.samples)[1]
    wait_for_canvas(page, second)
    x, y, width, height = map(float, page.canvas.locator("svg").get_attribute("viewBox").split())
    assert x <= 20 <= 32 <= x + width
    assert y <= 30 <= 39 <= y + height
    assert width < show.samples[second].size_hw[1]
    page.tab.get_by_role("button", name="Add to edits").first.click()
    until(page.edits.is_file)
    entry = {"key": second, "label": show.labels.names[2], "part": 0}
    assert yaml.safe_load(page.edits.read_text())["drop"] == [entry]
    page.tab.get_by_role("button", name="▶").click()
    page.tab.get_by_text("2 of 2").wait_for()
    page.tab.get_by_text(second, exact=True).first.click()
    wait_for_canvas(page, second)


def test_a_run_has_curves(page):
    view(page, "Runs")
    until(lambda: page.tab.get_by_test_id("stVegaLiteChart").count() == 2)
    page.tab.get_by_test_id("stVegaLiteChart").first.locator("canvas, svg").first.wait_for()


def test_a_run_of_one_epoch_is_a_point_beside_others_lines(page, material):
    run = next(path for path in material if path.name == "run")
    text = (run / "metrics.csv").read_text()
    (run / "metrics.csv").write_text("".join(text.splitlines(keepends=True)[:2]))
    try:
        view(page, "Runs")
        chart = page.tab.get_by_test_id("stVegaLiteChart").first
        chart.locator("svg, canvas").first.wait_for()
        # Two of the other run, and one of this.
        until(lambda: chart.locator("svg .mark-symbol.role-mark path").count() == 3)
    finally:
        (run / "metrics.csv").write_text(text)


def test_a_pipeline_tells_its_steps_and_what_failed(page):
    view(page, "Pipeline")
    page.tab.get_by_text("my_run", exact=True).wait_for()
    page.tab.get_by_text("steps: 1 begun, 1 done, 1 failed").wait_for()
    page.tab.get_by_text("train-yolo failed after 2.0 h: no <b>room</b>").wait_for()
    code = page.tab.get_by_test_id("stCode").filter(has_text="OutOfMemoryError: no room")
    assert "first <i>" in code.first.inner_text()
    page.tab.get_by_text("train-unet: train smp: 4/9, 0.2/s").wait_for()
    assert page.tab.get_by_test_id("stDataFrame").count() == 1


def test_what_a_step_goes_on_to_say_is_shown_without_a_click(page, pipeline):
    view(page, "Pipeline")
    page.tab.get_by_text("train-unet: train smp: 4/9, 0.2/s").wait_for()
    log = pipeline / "logs" / "train-unet.log"
    before = log.read_text()
    log.write_text(before + "train smp: 5/9, 0.3/s\n")
    try:
        page.tab.get_by_text("train-unet: train smp: 5/9, 0.3/s").wait_for()
    finally:
        log.write_text(before)


def test_a_step_leads_to_its_curves(page):
    view(page, "Pipeline")
    page.tab.get_by_role("button", name="train-unet").click()
    until(lambda: page.tab.get_by_test_id("stVegaLiteChart").count() == 2)
    chosen = page.tab.get_by_test_id("stMultiSelect").first
    assert "fold-0" in chosen.inner_text()


def test_the_last_correction_is_taken_back_by_a_key(page, show):
    theirs = {"key": list(show.samples)[5], "label": "tile-2"}
    text = f"# mine\nversion: 1\ndrop:\n- {{key: {theirs['key']}, label: tile-2}}  # a ghost\n"
    page.edits.write_text(text)
    page.tab.reload()
    wait_for_canvas(page)
    key = shown_key(page)
    sample = show.samples[key]
    height, width = sample.size_hw
    centre = next(o for o in sample.instances if o.label == "tile-4").geometry.centroid
    page.tab.mouse.click(*at_pixel(page, 0, centre.x, centre.y, width, height))
    page.tab.get_by_text("Correct: tile-4, part 0").wait_for()
    page.tab.get_by_role("button", name="Add to edits").click()
    until(lambda: "tile-4" in page.edits.read_text())
    # What is chosen on the canvas stays chosen in the form.
    page.tab.get_by_text("Correct: tile-4, part 0 (1 made)").wait_for()
    assert page.edits.read_text().startswith(text)
    layer = page.canvas.locator("g[data-layer=truth]")
    until(lambda: layer.locator("g[data-class=tile-4]").count() == 0)
    page.tab.keyboard.press("z")
    until(lambda: page.edits.read_text() == text)
    until(lambda: layer.locator("g[data-class=tile-4]").count() == 1)
    page.tab.get_by_text(f"taken back: drop: key {key}, label tile-4").wait_for()
    # What others wrote is not the last that was made here.
    page.tab.keyboard.press("z")
    page.tab.get_by_text("nothing to take back").wait_for()
    assert page.edits.read_text() == text


def test_a_small_screen(page, show):
    page.tab.set_viewport_size({"width": 390, "height": 800})
    page.tab.wait_for_timeout(500)
    frame = page.tab.locator("iframe[title*=zoo_canvas]").bounding_box()
    assert frame["x"] >= 0
    assert frame["x"] + frame["width"] <= 390
    body = page.canvas.locator("body")
    assert body.evaluate("e => e.scrollWidth <= e.clientWidth")
    assert body.evaluate("e => document.documentElement.scrollHeight <= innerHeight + 2")
    panes = page.canvas.locator("svg").evaluate_all("a => a.map(s => s.clientWidth)")
    assert min(panes) > 100
    page.canvas.locator("#errors").click()
    assert page.canvas.locator("path.missed").count() > 0


def test_what_cannot_be_opened_is_said_on_the_page(browser, show, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(show.stores[0], broken)
    edits = tmp_path / "edits.yaml"
    arguments = page_arguments([show.data, broken], edits, labels_name=str(show.space))
    (broken / "SHA256SUMS").unlink()
    with reserved_port() as port, serving(arguments, port):
        tab = browser.new_page()
        tab.goto(f"http://127.0.0.1:{port}/")
        tab.get_by_text("SHA256SUMS").first.wait_for(timeout=WAIT_MS)
        tab.close()
