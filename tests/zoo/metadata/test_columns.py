"""What tables and data sets say of images becomes numbers; what cannot is said in a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.types import Sample
from zoo.config import check_config
from zoo.families import FAMILIES, load_family
from zoo.families.semantic import SemanticFamily
from zoo.metadata.columns import FILE, Column, Columns
from zoo.metadata.config import MetadataConfig
from zoo.metadata.reading import read_to_predict, read_to_train

AGES = (30.0, 50, "70", None, float("nan"), "n/a")


@pytest.fixture
def samples() -> list[Sample]:
    sexes = ("F", "M", "F", "", None, "M")
    return [
        Sample(f"a/{i}", Path(f"{i}.png"), (8, 8), group=f"P{i}", attributes={"age": a, "sex": s})
        for i, (a, s) in enumerate(zip(AGES, sexes, strict=True))
    ]


def config(columns: Any = ("age", "sex"), **further: Any) -> MetadataConfig:
    return check_config(MetadataConfig, {"columns": columns, **further}, "test")


def fit(samples: list[Sample], tmp_path: Path, **further: Any) -> Columns:
    given = config(**further)
    return read_to_train(given, samples, tmp_path).fit(given, [s.key for s in samples])


def test_numbers_are_standardised_by_known_values(samples: list[Sample], tmp_path: Path) -> None:
    columns = fit(samples, tmp_path)
    known = [30.0, 50.0, 70.0]
    assert columns.columns[0] == Column("age", (), np.mean(known), np.std(known))
    assert columns.columns[1] == Column("sex", ("F", "M"))
    found = read_to_train(config(), samples, tmp_path).rows(columns)
    scaled = (30 - np.mean(known)) / np.std(known)
    # Age, whether it is missing, woman, man, whether that is missing.
    assert found["a/0"].tolist() == pytest.approx([scaled, 0, 1, 0, 0])
    assert found["a/3"].tolist() == columns.missing.tolist() == [0, 1, 0, 0, 1]
    assert found["a/5"].tolist() == [0, 1, 0, 1, 0]
    assert found["a/5"].dtype == np.float32


def test_scales_are_those_of_images_that_are_learned_from(
    samples: list[Sample], tmp_path: Path
) -> None:
    given = config(["age"])
    columns = read_to_train(given, samples, tmp_path).fit(given, ["a/0", "a/1"])
    assert columns.columns == (Column("age", (), 40.0, 10.0),)


def test_what_does_not_vary_has_no_scale(samples: list[Sample], tmp_path: Path) -> None:
    (column,) = fit(samples[:1], tmp_path, columns=["age"]).columns
    assert (column.mean, column.deviation, column.encode(30)) == (30.0, 1.0, [0.0, 0.0])


def test_a_run_reads_back_what_it_wrote(samples: list[Sample], tmp_path: Path) -> None:
    columns = fit(samples, tmp_path)
    columns.save(tmp_path)
    assert Columns.load(tmp_path) == columns
    (tmp_path / FILE).write_text('{"columns": [{"name": "age", "mean": 1, "deviation": 0}]}')
    with pytest.raises(ValueError, match=r"metadata\.json: expected a column's name and categor"):
        Columns.load(tmp_path)
    (tmp_path / FILE).unlink()
    with pytest.raises(ValueError, match=r"metadata\.json: expected the columns .* found no file"):
        Columns.load(tmp_path)


@pytest.mark.parametrize("by", ["image", "patient"])
def test_a_table_says_the_same(by: str, samples: list[Sample], tmp_path: Path) -> None:
    name = {"image": lambda s: s.file_name, "patient": lambda s: s.group}[by]
    cells = [(name(s), s.attributes["sex"] or "", s.attributes["age"] or "") for s in samples]
    lines = [",".join(map(str, row)) for row in [(by, "sex", "age"), *cells]]
    (tmp_path / "who.csv").write_text("\n".join(lines))
    from_table = fit(samples, tmp_path, file="who.csv")
    assert from_table.columns == fit(samples, tmp_path).columns
    assert from_table.file == str(tmp_path / "who.csv")
    rows = [
        read_to_train(config(**f), samples, tmp_path).rows(from_table)
        for f in ({}, {"file": "who.csv"})
    ]
    assert all(np.array_equal(rows[0][s.key], rows[1][s.key]) for s in samples)


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ({"code": "auto"}, Column("code", (), 2.0, 1.0)),
        ({"code": "number"}, Column("code", (), 2.0, 1.0)),
        ({"code": "category"}, Column("code", ("1", "3"))),
    ],
)
def test_a_config_may_say_what_numbers_are(
    kinds: dict[str, str], expected: Column, tmp_path: Path
) -> None:
    coded = [
        Sample(str(i), Path(f"{i}.png"), (8, 8), attributes={"code": c})
        for i, c in enumerate([1, 3.0, "1", 3])
    ]
    assert fit(coded, tmp_path, columns=kinds).columns == (expected,)


@pytest.mark.parametrize(
    ("columns", "values", "message"),
    [
        (
            ["agee"],
            [1, 2],
            r"'agee' \(did you mean 'age'\?\): expected an attribute .*found age, n",
        ),
        (["age"], [1, "old"], r"'age': expected numbers, found 'old' of '1'; mend it, or leave"),
        (["age"], ["old", "new", 3], r"'age': expected numbers, found 'old' of '0'"),
        ({"age": "number"}, ["M", "F"], r"'age': expected numbers, found 'M' of '0'"),
        (["age"], [None, ""], r"'age': expected values of the training images, found none of 2"),
        (
            ["age"],
            [f"n{i}" for i in range(65)],
            r"'age': expected at most 64 categories, found 65 of 65",
        ),
        (["age"], [float("inf"), 2], r"'age': expected numbers, found 'inf' of '0'"),
    ],
)
def test_columns_that_cannot_be_used(
    columns: Any, values: list[Any], message: str, tmp_path: Path
) -> None:
    people = [
        Sample(str(i), Path(f"{i}.png"), (8, 8), attributes={"age": v, "note": ""})
        for i, v in enumerate(values)
    ]
    with pytest.raises(ValueError, match=message) as caught:
        fit(people, tmp_path, columns=columns)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"who\.csv: expected a table \(CSV in UTF-8\), found: No such file"),
        ("image,years\n0,3\n", r"who\.csv: expected a column 'age' in the first line, found image"),
        ("image,age\nx,31\n", r"who\.csv: expected a column with the images' names"),
        ("image,age\n0,3\n0,4\n", r"who\.csv: expected one 'age' of '0', found '3' and '4'"),
        ("image,age\n0,3\n1,4 y\n", r"who\.csv: 'age': expected numbers, found '4 y' of 'a/1'"),
    ],
)
def test_tables_that_cannot_be_used(
    text: str | None, message: str, samples: list[Sample], tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "who.csv").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        fit(samples, tmp_path, columns=["age"], file=str(tmp_path / "who.csv"))
    assert "\n" not in str(caught.value)


def test_a_text_of_an_image_that_is_scored_or_predicted(
    samples: list[Sample], tmp_path: Path
) -> None:
    columns = fit(samples, tmp_path)
    odd = [Sample("b/7", Path("7.png"), (8, 8), attributes={"age": "seventy"})]
    found = read_to_predict(config(), columns, odd)
    with pytest.raises(ValueError, match="'age': expected a number, found 'seventy' of 'b/7'"):
        found.rows(columns)


def test_prediction_needs_no_table(samples: list[Sample], tmp_path: Path) -> None:
    (tmp_path / "who.csv").write_text("image,sex,age\n0,F,30\n1,M,40\n")
    given = config(file=str(tmp_path / "who.csv"))
    columns = fit(samples, tmp_path, file=str(tmp_path / "who.csv"))
    others = [Sample("c/9", Path("9.png"), (8, 8))]
    absent = read_to_predict(given, columns, others)
    assert absent.rows(columns)["c/9"].tolist() == columns.missing.tolist()
    (line,) = absent.notes(columns)
    assert line.startswith("metadata: found no age, sex of any of 1 images (")
    assert "who.csv has none of them" in line
    assert read_to_predict(given, columns, []).notes(columns) == []
    (tmp_path / "who.csv").unlink()
    assert "is not there" in read_to_predict(given, columns, others).notes(columns)[0]
    # By what the data set says itself.
    assert read_to_predict(given, columns, samples).notes(columns) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"columns": []}, "'columns'"),
        ({"columns": ["age", "age"]}, "'columns': expected names of columns, each once"),
        ({"columns": [3]}, "'columns': expected names of columns, each once"),
        ({"columns": {"age": "years"}}, "'columns.age'"),
        ({"columns": ["age"], "file": "meta_data.xlsx"}, "'file': expected a table, .csv or .tsv"),
        ({"columns": ["age"], "use": "output"}, "'use'"),
        ({"columns": ["age"], "weight": 0}, "'weight'"),
        ({"columns": ["age"], "colums": 1}, "unknown key 'colums'"),
    ],
)
def test_settings_that_are_none(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_config(MetadataConfig, given, "test")


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_families_take_metadata_or_say_that_they_do_not(name: str) -> None:
    family = load_family(name)
    raw = {"metadata": {"columns": ["age"]}}
    if isinstance(family, SemanticFamily):
        assert "metadata" in family.Config.model_fields
        return
    with pytest.raises(
        ValueError, match="metadata: expected in a config of a semantic family"
    ) as caught:
        check_config(family.Config, raw, "test")
    assert "unknown key" not in str(caught.value)


@pytest.mark.slow
def test_compiled_networks_are_refused() -> None:
    config_of = load_family("smp").Config
    raw = {"size": [64, 64], "epochs": 1, "batch": 1, "compile": True}
    with pytest.raises(ValueError, match="compile: expected false beside metadata"):
        check_config(config_of, raw | {"metadata": {"columns": ["age"]}}, "test")
