"""What the fuse command refuses: exit code 2, one line, and nothing written."""

import json

import pytest

from fusion.sources import submission


def broken_store(work, folder, change):
    store = folder / "bad"
    store.mkdir()
    for path in (work / "a").iterdir():
        (store / path.name).write_bytes(path.read_bytes())
    change(store)
    return store


def edit_manifest(change):
    def edit(store):
        record = json.loads((store / "manifest.json").read_text(encoding="utf-8"))
        change(record)
        # So old a store has no checksums.
        record["version"] = 1
        (store / "manifest.json").write_text(json.dumps(record), encoding="utf-8")

    return edit


def cut_off(store):
    part = store / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-100])


BAD_STORES = {
    "other labels": (edit_manifest(lambda r: r["names"].reverse()), "order of the classes"),
    "other images": (edit_manifest(lambda r: r["images"].pop()), "images differ"),
    "other sizes": (edit_manifest(lambda r: r["images"][0].__setitem__(1, 7)), "is (7, 64), not"),
    "other split": (edit_manifest(lambda r: r.update(split="y")), "found those of another"),
    "cut off": (cut_off, "expected a whole Parquet file"),
    "no manifest": (lambda s: (s / "manifest.json").unlink(), "without manifest.json"),
}


@pytest.fixture
def assert_refused(zoo, leftovers, tmp_path, capsys):
    """Return a function: a fusion ends in one line, and what was there stays."""

    def refuse(sources, said, *options):
        out = tmp_path / "out.csv"
        before = "image_name,class,rle\nbefore.png,cup,\n"
        out.write_text(before, encoding="utf-8")
        zoo("fuse", *sources, "--out", out, *(options or ("--method", "vote")), code=2)
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        assert said in lines[0]
        assert out.read_text(encoding="utf-8") == before
        assert leftovers(tmp_path) == []

    return refuse


@pytest.mark.parametrize("case", BAD_STORES)
def test_a_store_that_does_not_fit_is_one_line(assert_refused, stores, case, work, tmp_path):
    change, said = BAD_STORES[case]
    bad = broken_store(work, tmp_path, change)
    assert_refused([*stores, bad], said)


def with_last(**changes):
    return lambda rows: [*rows[:-1], rows[-1]._replace(**changes)]


BAD_FILES = {
    "foreign image": (
        lambda rows: [*rows, *(row._replace(image_name="x.png") for row in rows[:9])],
        "such as 'x.png'",
        "such as 'x.png'",
    ),
    "foreign pair": (with_last(image_name="x.png"), "no row of", "no row of"),
    "other class": (with_last(label="cup"), "a row of 'cup', other", "a row of 'cup', other"),
    "twice": (lambda rows: [*rows, rows[0]], "comes twice", "comes twice"),
    "overlap": (with_last(rle="5 9 6 2"), "do not overlap", "do not overlap"),
    "unsorted": (with_last(rle="50 2 6 2"), "sorted runs", "sorted runs"),
    "outside": (with_last(rle="6144 2"), "pixels up to 6144 (96 x 64)", ""),
    "no code": (with_last(rle="what"), "whole numbers", "whole numbers"),
}


# Submissions alone do not know where their images end.
@pytest.mark.parametrize(
    ("case", "alone"), [(c, a) for c in BAD_FILES for a in (True, False) if BAD_FILES[c][1 + a]]
)
@pytest.mark.slow
def test_a_submission_that_does_not_fit_is_one_line(
    assert_refused, stores, files, case, alone, tmp_path
):
    change, *said = BAD_FILES[case]
    bad = tmp_path / "bad.csv"
    submission.write(bad, change(list(submission.read(files[1]))))
    assert_refused([*(files if alone else stores), bad], said[alone])


def test_a_config_of_other_sources_is_one_line(assert_refused, stores, tmp_path):
    config = tmp_path / "fusion.yaml"
    config.write_text("method: hybrid\nsources: [a, x]\nclasses: {}\n", encoding="utf-8")
    said = "fusion.yaml: 'sources': the fusion config expects the sources a, x; given are a, b, c"
    assert_refused(stores, said, "--config", config)


BAD_CONFIGS = {
    "k": ("method: vote\nk: 5\n", "fusion.yaml: vote: 'k': expected 0 to 3, found 5"),
    "inside": (
        "method: classwise\nrest: {method: vote, k: 4}\n",
        "fusion.yaml: vote: 'k': expected",
    ),
    "class": ("method: mean\nthresholds: {cup: 0.4}\n", "fusion.yaml: mean: expected classes or"),
    "around": ("method: vote\nk: 5\nrefine: {all: {parts: 1}}\n", "fusion.yaml: vote: 'k'"),
    "no weight": (
        "method: weighted\nsources: [a, b, c]\nweights: {a: 1}\n",
        "fusion.yaml: weighted",
    ),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
@pytest.mark.slow
def test_a_config_that_does_not_fit_is_named(assert_refused, stores, tmp_path, case):
    text, said = BAD_CONFIGS[case]
    config = tmp_path / "fusion.yaml"
    config.write_text(text, encoding="utf-8")
    assert_refused(stores, said, "--config", config)


BAD_OPTIONS = [
    (("--jobs", "0"), "--jobs: expected 1 or more"),
    (("--floor", "2"), "--floor: expected 0 to 1"),
    (("--on", "moon"), "--on moon: expected ray"),
    (("--format", "coco"), "--format coco: expected --data"),
    (("--format", "store"), "or a prediction store to replace"),
    (("--labels", "waste"), "its classes are not those of 'waste'"),
]


@pytest.mark.parametrize(("options", "said"), BAD_OPTIONS)
@pytest.mark.slow
def test_a_bad_option_is_one_line(assert_refused, stores, options, said, tmp_path, monkeypatch):
    # Where no data set is near, neither the demo's nor what other tests have left beside this one.
    far = tmp_path.joinpath(*"abcdef")
    far.mkdir(parents=True)
    monkeypatch.chdir(far)
    assert_refused(stores, said, "--method", "vote", *options)


def test_an_unknown_format_is_one_line(zoo, stores, work, tmp_path, capsys):
    given = (*stores, "--method", "vote", "--data", work / "data", "--format", "png")
    zoo("fuse", *given, "--out", tmp_path / "out", code=2)
    said = capsys.readouterr().err
    assert "format 'png': expected one of csv, store, coco_results, handbone, yolo" in said
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_other_things_is_not_replaced(zoo, stores, work, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "photo.jpg").write_bytes(b"1")
    given = (*stores, "--method", "vote", "--data", work / "data", "--format", "coco")
    zoo("fuse", *given, "--out", tmp_path / "out", code=2)
    assert "expected nothing there" in capsys.readouterr().err
    zoo("fuse", *given[:-1], "csv", "--out", tmp_path / "out", code=2)
    assert "found a folder" in capsys.readouterr().err
    assert (tmp_path / "out" / "photo.jpg").exists()


def test_a_source_is_not_replaced(zoo, stores, files, tmp_path, capsys):
    before = files[0].read_bytes()
    zoo("fuse", *files, "--method", "vote", "--out", files[0], code=2)
    assert "expected another place than that of a source" in capsys.readouterr().err
    assert files[0].read_bytes() == before
    zoo("fuse", *stores, "--method", "vote", "--format", "store", "--out", stores[0], code=2)
    assert "expected another place than that of a source" in capsys.readouterr().err
    assert (stores[0] / "manifest.json").exists()


@pytest.mark.parametrize(
    ("before", "code"),
    [(b"method: vote\n", 2), (b"\x89PNG\r\n", 2), (b"image_name,class,rle\n", 0), (b"", 0)],
)
@pytest.mark.slow
def test_only_a_submission_is_replaced(zoo, stores, tmp_path, capsys, before, code):
    out = tmp_path / "out.csv"
    out.write_bytes(before)
    zoo("fuse", *stores, "--method", "vote", "--out", out, code=code)
    if code:
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert "expected nothing there, or a submission to replace" in line
    assert (out.read_bytes() == before) == bool(code)


def test_an_unfinished_store_of_somebody_else_is_left_alone(zoo, stores, tmp_path, capsys):
    notes = tmp_path / "out.partial" / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("mine", encoding="utf-8")
    given = (*stores, "--method", "vote", "--format", "store")
    zoo("fuse", *given, "--out", tmp_path / "out", code=2)
    assert "out.partial: expected a prediction store" in capsys.readouterr().err
    assert notes.read_text(encoding="utf-8") == "mine"


def test_stores_in_a_folder_that_is_none_are_named(tmp_path, zoo, capsys):
    for name in ("a/val", "b/val"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "manifest.json").write_text("{}")
    zoo("fuse", tmp_path / "runs", "--out", tmp_path / "x.csv", "--method", "mean", code=2)
    said = " ".join(capsys.readouterr().err.split())
    runs = tmp_path / "runs"
    assert f"2 stores in it: give {runs}/a/val {runs}/b/val" in said
