"""Images that come out of a fusion without any object are counted, and whose fault it is."""

import pytest

from fusion.sources.manifest import Manifest
from fusion.sources.store import StoreWriter
from fusion.types import Prediction
from zoo.cli import main


@pytest.fixture
def write_store(toys, shift_truth, tmp_path):
    """Return a function: write a store of the toys' truth, without any object in some."""

    def write(name, *empty):
        images = {s.key: (*s.size_hw, s.file_name) for s in toys.samples}
        manifest = Manifest("semantic", "toys", toys.labels.names, images, space=toys.labels)
        with StoreWriter(tmp_path / name, manifest) as writer:
            for number, sample in enumerate(toys.samples):
                truth = shift_truth(sample, 0)
                nothing = Prediction(sample.key, sample.size_hw, "semantic", {})
                writer.append(nothing if number in empty else truth)
        return tmp_path / name

    return write


def fuse(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main(["fuse", *map(str, words)])
    said = capsys.readouterr()
    assert not ended.value.code, said.err
    return said.out


@pytest.mark.slow
@pytest.mark.parametrize("to", ["csv", "store"])
@pytest.mark.parametrize("jobs", [1, 2])
def test_images_without_any_object_are_said(write_store, toys, tmp_path, capsys, to, jobs):
    sources = [write_store("a", 1, 4, 5), write_store("b", 1, 4), write_store("c")]
    common = ("--method", "vote", "--format", to, "--out", tmp_path / "out", "--jobs", jobs)
    name = toys.samples[1].key + ("" if to == "store" else ".png")
    assert (
        f"2 of 6 images came out without any object, such as {name}; sources that had none there "
        "either: a in all of them, b in all of them"
    ) in fuse(capsys, *sources, *common)


def test_what_is_dropped_as_uncertain_is_not_said_of_the_sources(write_store, tmp_path, capsys):
    a, b = write_store("a", 0), write_store("b")
    common = ("--method", "mean", "--out", tmp_path / "out.csv", "--floor")
    said = fuse(capsys, a, b, *common, 0.9)
    assert "1 of 6 images came out without any object" in said
    assert "either: a in all of them" in said
    assert "without any object" not in fuse(capsys, b, *common, 0.9)


def test_a_fusion_with_objects_everywhere_says_nothing_of_it(write_store, tmp_path, capsys):
    assert "without" not in fuse(capsys, write_store("a"), "--out", tmp_path / "o.csv")
