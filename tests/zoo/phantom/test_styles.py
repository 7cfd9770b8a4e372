"""Two annotators: different lines of the same bones, guesses where nothing is seen."""

import json
from functools import partial

import numpy as np
import pytest

import converters
from converters.masks import rasterize_labels
from fusion.metrics.scores import dice
from zoo.phantom.config import PhantomConfig
from zoo.phantom.tree import write_phantom

pytestmark = pytest.mark.slow

SMALL = partial(PhantomConfig, people=5, test_people=0, size=512, artefacts=0.0)


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    root = tmp_path_factory.mktemp("styles")
    for count in (1, 2):
        write_phantom(root / str(count), SMALL(annotators=count))
    return root / "1", root / "2"


def samples(tree):
    return {sample.key: sample for sample in converters.read(tree)}


def style_of(tree, key):
    file = tree / (key.replace("/DCM/", "/outputs_json/") + ".json")
    return json.loads(file.read_text(encoding="utf-8"))["last_modifier_id"]


def test_the_images_are_the_same(trees):
    one, two = trees
    for path in one.rglob("*.png"):
        assert path.read_bytes() == (two / path.relative_to(one)).read_bytes()


def test_both_draw_some(trees):
    _, two = trees
    assert len({style_of(two, key) for key in samples(two)}) == 2


def test_each_draws_in_a_way_of_its_own(trees):
    one, two = trees
    real, drawn = samples(one), samples(two)
    grown = {}
    for key, sample in drawn.items():
        before = rasterize_labels(real[key].instances, sample.size_hw)
        after = rasterize_labels(sample.instances, sample.size_hw)
        shares = [after[n].area / before[n].area for n in before if n.startswith("finger")]
        grown.setdefault(style_of(two, key), []).append(np.median(shares))
        assert min(dice(before[n], after[n]) for n in before) > 0.7
    inner, outer = sorted(np.median(values) for values in grown.values())
    assert 0.98 < inner < 1.02
    assert outer > 1.05


def test_one_draws_as_ever(tmp_path, trees):
    # No word of annotators where there is one, so that old seeds give the old bytes.
    record = json.loads((trees[0] / "provenance.json").read_text(encoding="utf-8"))
    assert "annotators" not in record["config"]


def test_another_number_is_refused():
    with pytest.raises(ValueError, match="annotators: expected 1 or 2, found 3"):
        PhantomConfig(annotators=3)
