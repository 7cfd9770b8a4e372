from __future__ import annotations

import io
from itertools import combinations, product

import numpy as np
import pytest
from PIL import Image

from converters.formats.mask_layouts import color_graph, decode_mask, encode_mask
from converters.masks import crop, pack, unpack
from converters.types import LabelSpace


@pytest.mark.parametrize("classes", [1, 8, 11, 24, 29, 32])
def test_pillow_reads_the_bits_as_rgba(classes):
    space = LabelSpace("some", tuple(f"c{i}" for i in range(classes)))
    stack = np.random.default_rng(0).integers(0, 2, (classes, 7, 5)).astype(np.uint8)
    stack[-1, :, :2] = 0
    packed = pack({f"c{i}": crop(p) for i, p in enumerate(stack)}, space, (7, 5))
    png = encode_mask(packed)
    np.testing.assert_array_equal(unpack(decode_mask(png, "x"), classes), stack)
    with_pillow = np.asarray(Image.open(io.BytesIO(png)))
    assert with_pillow.shape == (7, 5, 4)
    for c in range(classes):
        np.testing.assert_array_equal(with_pillow[..., c // 8] >> (c % 8) & 1, stack[c])


def test_transparent_pixels_keep_their_colour():
    packed = np.zeros((2, 2, 4), np.uint8)
    packed[..., 0] = 255
    np.testing.assert_array_equal(decode_mask(encode_mask(packed), "x"), packed)


def test_one_image_holds_at_most_32_classes():
    with pytest.raises(ValueError, match="at most 32 classes in an image"):
        encode_mask(np.zeros((2, 2, 5), np.uint8))


# --- groups of classes that do not touch


def random_graph(seed: int, nodes: int, density: float) -> tuple[list[str], list[tuple[str, str]]]:
    names = [f"n{i}" for i in range(nodes)]
    kept = np.random.default_rng(seed).random(nodes * (nodes - 1) // 2) < density
    return names, [e for e, keep in zip(combinations(names, 2), kept, strict=True) if keep]


def chromatic_number(names: list[str], edges: list[tuple[str, str]]) -> int:
    """By trying everything."""
    place = {name: i for i, name in enumerate(names)}
    for count in range(1, len(names) + 1):
        for colors in product(range(count), repeat=len(names)):
            if all(colors[place[a]] != colors[place[b]] for a, b in edges):
                return count
    return 0


def assert_valid(groups, names, edges):
    assert sorted(n for members in groups for n in members) == sorted(names)
    group = {n: i for i, members in enumerate(groups) for n in members}
    assert all(group[a] != group[b] for a, b in edges)


@pytest.mark.parametrize("seed", range(12))
def test_as_few_as_trying_everything_finds(seed):
    names, edges = random_graph(seed, 7, 0.2 + 0.06 * seed)
    groups = color_graph(names, edges)
    assert_valid(groups, names, edges)
    assert len(groups) == chromatic_number(names, edges)


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
@pytest.mark.slow
def test_large_graphs_end_and_are_no_worse_than_dsatur(density, monkeypatch):
    monkeypatch.setattr("converters.formats.mask_layouts.MOST_STEPS", 500)
    names, edges = random_graph(1, 60, density)
    groups = color_graph(names, edges)
    assert_valid(groups, names, edges)
    networkx = pytest.importorskip("networkx")
    graph = networkx.Graph(edges)
    graph.add_nodes_from(names)
    theirs = networkx.greedy_color(graph, strategy="DSATUR")
    assert len(groups) <= 1 + max(theirs.values())


def test_nodes_keep_their_order_and_no_nodes_are_no_groups():
    assert color_graph(["c", "b", "a"], []) == [("c", "b", "a")]
    assert color_graph([], []) == []
