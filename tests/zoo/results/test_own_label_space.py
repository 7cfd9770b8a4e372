"""Stores of a user's own label space: it travels with them, its file is not looked for again."""

from dataclasses import replace

import pytest

from converters.types import LabelSpace
from fusion.sources.manifest import Manifest
from fusion.sources.store import PredictionStore, StoreWriter

COMMANDS = {
    "evaluate": ("evaluate", "A", "--data", "DATA"),
    "against": ("evaluate", "A", "--against", "B", "--data", "DATA"),
    "csv": ("fuse", "A", "B", "--method", "mean", "--out", "OUT/x.csv"),
    "store": ("fuse", "A", "B", "--method", "mean", "--format", "store", "--out", "OUT/x"),
    "data set": ("fuse", "A", "B", *("--method", "mean", "--data", "DATA"),
                 *("--format", "coco", "--out", "OUT/x")),
    "fit": ("fit", "A", "B", *("--method", "mean", "--refine", "none", "--data", "DATA"),
            *("--out", "OUT/x.yaml")),
    "report": ("report", "A", "B", "--data", "DATA", "--out", "OUT/x.html"),
    "compare": ("compare", "A", "B", "--data", "DATA", "--out", "OUT/x"),
}  # fmt: skip


@pytest.fixture(scope="module")
def own(stores, toys, tmp_path_factory):
    """Two stores of classes that are known by no file's name."""
    folder = tmp_path_factory.mktemp("own")
    space = replace(toys.labels, name="mine", groups={"tiles": toys.labels.names[1:]})
    for path in stores[:2]:
        found = PredictionStore(path)
        manifest = replace(found.manifest, labels="mine", space=space)
        with StoreWriter(folder / path.name, manifest) as writer:
            for prediction in found:
                writer.append(prediction)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_store_brings_its_label_space(zoo, own, work, tmp_path, name):
    places = {"A": own / "a", "B": own / "b", "DATA": work / "data"}
    given = [str(places.get(word, word)).replace("OUT", str(tmp_path)) for word in COMMANDS[name]]
    zoo(*given)


def test_a_fused_store_brings_it_on(zoo, own, tmp_path):
    out = tmp_path / "fused"
    zoo("fuse", own / "a", own / "b", "--method", "mean", "--format", "store", "--out", out)
    space = PredictionStore(own / "a").label_space()
    assert PredictionStore(out).label_space() == space
    assert space.groups


def test_an_old_store_s_label_space_can_be_named(zoo, stores, work, toys, tmp_path, capsys):
    old = PredictionStore(stores[0])
    manifest: Manifest = replace(old.manifest, labels="mine")
    with StoreWriter(tmp_path / "old", manifest) as writer:
        for prediction in old:
            writer.append(prediction)
    given = ("evaluate", tmp_path / "old", "--data", work / "data")
    zoo(*given, "--labels", "tile-1,tile-2", code=2)
    assert "mine" in capsys.readouterr().err
    zoo(*given)  # the data set knows its classes
    zoo(*given, "--labels", toys.labels_file)
    assert LabelSpace.load(str(toys.labels_file)).names == manifest.names
