from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest

from converters.formats.graph_coloring import color


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
    groups = color(names, edges)
    assert_valid(groups, names, edges)
    assert len(groups) == chromatic_number(names, edges)


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_large_graphs_end_and_are_no_worse_than_dsatur(density):
    names, edges = random_graph(1, 60, density)
    groups = color(names, edges)
    assert_valid(groups, names, edges)
    networkx = pytest.importorskip("networkx")
    graph = networkx.Graph(edges)
    graph.add_nodes_from(names)
    theirs = networkx.greedy_color(graph, strategy="DSATUR")
    assert len(groups) <= 1 + max(theirs.values())


def test_nodes_keep_their_order_and_no_nodes_are_no_groups():
    assert color(["c", "b", "a"], []) == [("c", "b", "a")]
    assert color([], []) == []
