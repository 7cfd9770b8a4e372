"""A submission of other images than those that are asked for: what was, and what to do."""

import pytest

import converters
from fusion.sources import submission
from zoo.results.check import review_submission
from zoo.results.scoring import evaluate
from zoo.source import DataSource

TO_DO = "give the data set of the predicted images (--data)"


@pytest.fixture
def data(work):
    return DataSource.open(work / "data")


def test_a_subset_without_images_is_named(toys, files, tmp_path):
    # Some formats refuse a subset that is not there by themselves.
    converters.write(toys.samples, tmp_path / "set", format="labelme", labels=toys.labels)
    data = DataSource.open(tmp_path / "set")
    told = f"expected images of {data.path}, subset 'test', found none there: {TO_DO}"
    (problem,) = review_submission(files[0], data, "test", None).problems
    assert problem.startswith(told)
    with pytest.raises(ValueError, match="found none there") as caught:
        evaluate(files[0], data, None, "test", lambda *_: None)
    assert str(caught.value).startswith(f"{files[0]}: {told}")


def test_images_of_another_data_set_are_one_problem(data, files, tmp_path):
    rows = [row._replace(image_name=f"x{row.image_name}") for row in submission.read(files[0])]
    submission.write(tmp_path / "other.csv", rows)
    (problem,) = review_submission(tmp_path / "other.csv", data, "train", None).problems
    assert problem.startswith(f"expected images of {data.path}, subset 'train', such as '")
    assert "found 6 others, such as 'x" in problem
    assert TO_DO in problem
