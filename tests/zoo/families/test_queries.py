"""What every family does whose networks are transformers' with queries that are the instances."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from zoo.contract import PredictOptions
from zoo.families import FAMILIES, load_family
from zoo.families.query_family import ARCHITECTURE, QueryFamily

pytestmark = pytest.mark.slow

HEIGHT, WIDTH = 64, 96
NAMES = ("mask2former", "oneformer", "eomt", "rfdetr")
every = pytest.mark.parametrize("name", NAMES)
Make = Callable[..., Any]


def _family(name: str) -> QueryFamily:
    family = load_family(name)
    assert isinstance(family, QueryFamily)
    return family


def test_all_such_families_are_tested_here() -> None:
    assert tuple(n for n in FAMILIES if isinstance(load_family(n), QueryFamily)) == NAMES


# --- what it learns from


@every
def test_every_weight_that_learns_is_used(build: Make, draw: Make, name: str) -> None:
    network = build(name).train()
    network.loss(*draw()).backward()
    assert [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None] == []


@every
def test_the_encoder_has_a_rate_of_its_own(build: Make, name: str) -> None:
    network = build(name)
    encoder, whole = (sum(p.numel() for p in m.parameters()) for m in (network.encoder, network))
    assert 0.1 < encoder / whole < 1


# --- instances of queries


@every
@pytest.mark.learns
def test_masks_are_cut_to_where_they_say_something(learn: Make, find: Make, name: str) -> None:
    learned = learn(name)
    for found in find(learned.network, learned.drawn.images):
        for ((_, mask),) in found.values():
            assert mask.prob.size < HEIGHT * WIDTH
            assert mask.prob.shape == mask.box_xywh[:1:-1]


@every
@pytest.mark.learns
def test_half_precision_finds_the_same(
    learn: Make, build: Make, find: Make, iou: Make, name: str
) -> None:
    learned = learn(name)
    plain = find(learned.network, learned.drawn.images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = find(learned.network, learned.drawn.images)
        loss = build(name).train().loss(*learned.drawn)
    assert loss.dtype == torch.float32
    for a, b in zip(plain, half, strict=True):
        assert a.keys() == b.keys()
        for label in a:
            pixels = [
                m.binary((HEIGHT, WIDTH)).full((HEIGHT, WIDTH))
                for ((_, m),) in (a[label], b[label])
            ]
            assert iou(*pixels) > 0.9


# --- pretrained weights


@pytest.fixture
def pretrained(tmp_path: Path, build: Make) -> Make:
    """What a network of another task leaves on disk, and its weights."""

    def make(name: str) -> tuple[Path, dict[str, torch.Tensor]]:
        torch.manual_seed(7)
        network = build(name).network
        folder = tmp_path / "coco"
        network.save_pretrained(folder)
        return folder, network.state_dict()

    return make


@every
def test_pretrained_weights_are_taken_but_for_the_classes(
    configure: Make, pretrained: Make, name: str
) -> None:
    family, (folder, theirs) = _family(name), pretrained(name)
    config = configure(name, network=None, pretrained=str(folder))
    mine = family.build(config, 9).network.state_dict()
    other = [k for k in theirs if mine[k].shape != theirs[k].shape or not mine[k].equal(theirs[k])]
    assert other
    assert all(key.startswith(family.anew) for key in other)
    assert family.sources(config)[0].source == str(folder)


@every
def test_a_pretrained_run_predicts_without_the_pretrained_weights(
    configure: Make, pretrained: Make, make_job: Make, toys: Any, name: str
) -> None:
    family, (folder, _) = _family(name), pretrained(name)
    config, job = configure(name, network=None, pretrained=str(folder), epochs=1), make_job()
    family.train(config, job)
    shutil.rmtree(folder)
    assert (job.out / ARCHITECTURE).is_file()
    assert len(list(family.predict(job.out, config, toys.samples[:2], PredictOptions()))) == 2


@every
def test_pretrained_weights_that_cannot_be_had(configure: Make, tmp_path: Path, name: str) -> None:
    config = configure(name, network=None, pretrained=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"pretrained '.*nowhere': could not get") as caught:
        _family(name).build(config, 3)
    assert "pretrained=null" in str(caught.value)
    assert "\n" not in str(caught.value)


@every
def test_weights_of_another_network(configure: Make, tmp_path: Path, name: str) -> None:
    sizes = {"hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1], "decoder_hidden_size": 8}
    other = SegformerForSemanticSegmentation(SegformerConfig(**sizes, num_attention_heads=[1] * 4))
    other.save_pretrained(tmp_path / "mit")
    with pytest.raises(ValueError, match=r"pretrained '.*mit': ") as caught:
        _family(name).build(configure(name, network=None, pretrained=str(tmp_path / "mit")), 3)
    assert "\n" not in str(caught.value)


@every
def test_names_on_the_hub_whose_dimensions_are_known(configure: Make, name: str) -> None:
    family = _family(name)
    for start, network in family.known.items():
        config = configure(name, network=None, pretrained=start)
        assert family.without_weights(config).network == network
        assert family.sources(config)[0].licence != "unknown"
    with pytest.raises(ValueError, match="'x/y': its dimensions come with the weights"):
        family.without_weights(configure(name, network=None, pretrained="x/y"))


@every
def test_a_run_without_its_dimensions(configure: Make, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"network\.json: expected the network's dimensions"):
        _family(name).rebuild(tmp_path, configure(name), 3)


# --- configs


@every
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": None}, "either 'pretrained' or 'network', found both or none"),
        ({"pretrained": "x"}, "either 'pretrained' or 'network', found both or none"),
        ({"network": {"queries": 3}}, "unknown key 'network.queries'"),
        (
            {"network": {"num_queries": 8}, "size": [96, 96]},
            "num_queries: expected at least 9, one a class, found 8",
        ),
        ({"loss_weights": {"mask": 1}}, "unknown key 'loss_weights.mask'"),
    ],
)
def test_bad_configs(configure: Make, name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        configure(name, **changes)
