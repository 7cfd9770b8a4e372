"""Colours for a graph's nodes: as few as possible, none twice along an edge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

# Twenty-nine bones need some hundred steps; the bound is for graphs that nobody has met yet.
MOST_STEPS = 50_000


def color(nodes: Sequence[str], edges: Iterable[tuple[str, str]]) -> list[tuple[str, ...]]:
    """Divide nodes into as few groups as possible, so that no edge lies inside a group.

    D. Brelaz's DSATUR ("New methods to color the vertices of a graph", CACM 22, 1979): the node
    that sees most colours comes next. Going back over its choices finds the least number; a graph
    on which that takes more than 50,000 steps gets the best division found until then, which is
    never worse than plain DSATUR's.

    Args:
        nodes: in the order in which groups list them.
        edges: pairs of nodes.

    Returns:
        The groups; those of a graph without nodes are none.

    >>> color(["a", "b", "c"], [("a", "b"), ("b", "c")])
    [('b',), ('a', 'c')]
    """
    neighbours: dict[str, set[str]] = {node: set() for node in nodes}
    for a, b in edges:
        neighbours[a].add(b)
        neighbours[b].add(a)
    found = _Search(neighbours).run()
    groups = sorted({c: [n for n in nodes if found[n] == c] for c in found.values()}.items())
    return [tuple(members) for _, members in groups]


class _Search:
    def __init__(self, neighbours: Mapping[str, set[str]]) -> None:
        self._neighbours = neighbours
        self._place = {node: i for i, node in enumerate(neighbours)}
        self._least = _clique_size(neighbours)
        self._best: dict[str, int] = {}
        self._best_count = len(neighbours) + 1
        self._steps = 0

    def run(self) -> dict[str, int]:
        # Choices that are still open, the next one last: node, color, and the colours before it.
        open_choices: list[tuple[dict[str, int], int]] = [({}, 0)]
        while open_choices and self._best_count > self._least:
            colors, count = open_choices.pop()
            self._steps += 1
            if self._best and self._steps > MOST_STEPS:
                break
            if count >= self._best_count:
                continue
            if len(colors) == len(self._neighbours):
                self._best, self._best_count = colors, count
                continue
            node = self._next(colors)
            seen = {colors[n] for n in self._neighbours[node] if n in colors}
            free = [c for c in range(count + 1) if c not in seen and c + 1 < self._best_count]
            for c in reversed(free):
                open_choices.append(({**colors, node: c}, max(count, c + 1)))
        return self._best

    def _next(self, colors: Mapping[str, int]) -> str:
        def urgency(node: str) -> tuple[int, int, int]:
            around = self._neighbours[node]
            seen = len({colors[n] for n in around if n in colors})
            return seen, len(around), -self._place[node]

        return max((n for n in self._neighbours if n not in colors), key=urgency)


def _clique_size(neighbours: Mapping[str, set[str]]) -> int:
    """Nodes that all touch each other need a colour each: a bound from below, found greedily."""
    largest = 0
    for start in neighbours:
        size, candidates = 1, set(neighbours[start])
        while candidates:
            node = max(candidates, key=lambda n: (len(neighbours[n] & candidates), n))
            candidates &= neighbours[node]
            size += 1
        largest = max(largest, size)
    return largest
