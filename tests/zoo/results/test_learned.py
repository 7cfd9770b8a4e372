"""Images that a store's model has learned from are counted where they are scored."""

import pytest

from converters.splits.split import Split
from fusion.sources.manifest import Manifest
from fusion.sources.store import PredictionStore, StoreWriter
from fusion.types import Prediction
from zoo.results.scoring import count_learned, note_learned
from zoo.source import DataSource

KEYS = ("a", "b", "c", "d")
SPLIT = Split(1, 0, "group", (("a",), ("b", "c")), {key: key for key in "abc"})


def store_of(folder, subset, fold, split=SPLIT.digest):
    images = {key: (9, 9, f"{key}.png") for key in KEYS}
    given = {"split": split, "fold": fold, "subset": subset}
    manifest = Manifest("semantic", "toys", ("x",), images, **given)
    with StoreWriter(folder / "store", manifest) as writer:
        for key in KEYS:
            writer.append(Prediction(key, (9, 9), "semantic", {}))
    return PredictionStore(folder / "store")


@pytest.mark.parametrize(
    ("subset", "fold", "count"),
    [
        ("val", 0, 0),
        ("test", 0, 0),
        ("train", 0, 4),
        ("all", 0, 2),
        ("all", 1, 1),
        ("all", None, 3),
    ],
)
def test_images_that_were_learned_from_are_counted(tmp_path, subset, fold, count):
    SPLIT.save(tmp_path / "split.json")
    data = DataSource(tmp_path / "data", "coco")
    assert count_learned(store_of(tmp_path, subset, fold), KEYS, data) == count


def test_a_split_that_is_not_found_is_said(tmp_path, capsys):
    data = DataSource(tmp_path / "data", "coco")
    store = store_of(tmp_path, "all", 0)
    note_learned(store, KEYS, data)
    assert "may have learned from some of the 4 images" in capsys.readouterr().err
    SPLIT.save(tmp_path / "split.json")
    note_learned(store, KEYS, data)
    assert "its model learned from 2 of the 4 images that are scored" in capsys.readouterr().err


def test_nothing_is_said_of_what_another_program_predicted(tmp_path, capsys):
    note_learned(store_of(tmp_path, "all", None, ""), KEYS, DataSource(tmp_path / "data", "coco"))
    assert not capsys.readouterr().err
