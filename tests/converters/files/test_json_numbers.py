"""Coordinates are read as `json` reads them, or not at all."""

from __future__ import annotations

import json
from itertools import chain

import numpy as np
import pytest

from converters.files.json_numbers import read_rings


def written(rng: np.random.Generator) -> str:
    """A number of one to eight characters."""
    digits = "".join(map(str, rng.integers(0, 10, rng.integers(0, 7))))
    whole = str(rng.integers(0, 10 ** (7 - len(digits))))
    return f"{whole}.{digits}" if digits else whole


@pytest.mark.parametrize(("comma", "end"), [(",", ""), (", ", "\n"), (" ,\t", " ")])
def test_the_same_to_the_last_bit_as_json(comma: str, end: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        objects = [
            [[written(rng) for _ in range(rng.integers(1, 9))] for _ in range(rng.integers(1, 4))]
            for _ in range(rng.integers(1, 4))
        ]
        lists = [[f"[{comma.join(ring)}{end}]" for ring in own] for own in objects]
        texts = [f"[{end}{comma.join(own)}]".encode() for own in lists]
        found = read_rings(texts)
        assert found is not None
        numbers, lengths, owned = found
        parsed = [ring for text in texts for ring in json.loads(text)]
        assert numbers.tolist() == list(chain.from_iterable(parsed))
        assert lengths.tolist() == list(map(len, parsed))
        assert owned.tolist() == list(map(len, objects))


@pytest.mark.parametrize(
    "texts",
    [
        [b"[[1,2],3]"],
        [b"[3,[1,2]]"],
        [b"[[1],3,[4]]"],
        [b"[[]]"],
        [b"[[1],[]]"],
        [b"[]"],
        [b"[1,2]"],
        [b"[[[1]]]"],
        [b"[[1],[[2]]]"],
        [b"[[1]]", b"5"],
        [b"5", b"[[1]]"],
        [b"[]", b"[]"],
        [b"[[1e5]]"],
        [b"[[-1]]"],
        [b"[[NaN]]"],
        [b"[[123456789]]"],
        [b"[[1234.5678]]"],
        [b"[[true]]"],
        [b'[["1"]]'],
        [b'{"size":[1,1],"counts":"1"}'],
        [b"null"],
        [],
    ],
    ids=str,
)
def test_all_else_is_left_to_json(texts: list[bytes]) -> None:
    assert read_rings(texts) is None
