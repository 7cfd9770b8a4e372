"""The whole way on the command line: a refiner of stores is one more source for the fusion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import configs
import converters
from fusion.rules.file import read_rule
from fusion.sources.store import PredictionStore
from tests.zoo.families.refiner.conftest import Eggs
from zoo.config import check_config
from zoo.contract import PredictOptions
from zoo.families import load_family

pytestmark = pytest.mark.slow
SMALL = ("size=[32,32]", "epochs=1", "patches_per_image=2", "width=4", "device=cpu")


def test_from_stores_to_a_fit_and_to_other_images(
    eggs: Eggs, tmp_path: Path, zoo: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    converters.write(eggs.samples, Path("data"), format="coco", labels=eggs.labels)
    # The data set knows no patients; folds and stores do.
    eggs.split.save(Path("split.json"))
    Path("eggs.yaml").write_text(yaml.safe_dump(eggs.labels.record()))
    common = ("--data", "data", "--split", "split.json", "--folds", "all")
    places = ("--out", "runs/refiner", "--oof", "val/refiner", f"sources=[{','.join(eggs.stores)}]")
    zoo("train", "refiner", "--config", "laptop", *common, *places, "labels=eggs.yaml", *SMALL)
    store = PredictionStore(Path("val/refiner"))
    assert (store.manifest.split, store.manifest.kind) == (eggs.split.digest, "semantic")
    assert "sources" not in store.manifest.source["options"]
    zoo("fit", *eggs.stores, "val/refiner", "--data", "data", "--out", "fusion.yaml")
    assert read_rule(Path("fusion.yaml")).sources == ("left", "refiner", "right")

    elsewhere = Path("elsewhere")
    for path in map(Path, eggs.stores):
        (elsewhere / path.name).parent.mkdir(exist_ok=True)
        path.rename(elsewhere / path.name)
    try:
        out = ("--data", "data", "--subset", "all", "--out")
        zoo("predict", "runs/refiner", *out, "test/none", code=2)
        both = "elsewhere/left,elsewhere/right"
        zoo("predict", "runs/refiner", *out, "test/refiner", "--sources", both)
    finally:
        for path in map(Path, eggs.stores):
            (elsewhere / path.name).rename(path)
    found = PredictionStore(Path("test/refiner"))
    assert len(list(found)) == len(eggs.samples)
    assert found.manifest.source["options"]["sources"] == both.split(",")


@pytest.mark.parametrize("name", ["smp", "maskrcnn", "yolo"])
def test_others_take_no_sources(name: str, eggs: Eggs, tmp_path: Path) -> None:
    family = load_family(name)
    path = configs.find(name, next(iter(configs.names(name))))
    config = check_config(family.Config, yaml.safe_load(path.read_text(encoding="utf-8")), name)
    with pytest.raises(ValueError, match=f"sources: the family '{name}' predicts without"):
        list(family.predict(tmp_path, config, eggs.samples, PredictOptions(sources=("a",))))
