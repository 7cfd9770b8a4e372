"""Speed of masks to run-length codes and back, beside the usual numpy code and pycocotools.

Every side starts from the same 29 rasters of a network and ends in the codes of 29 masks of
2048 x 2048, or starts from the masks. The usual side is the encoder that notebooks on Kaggle pass
on: a whole plane, flattened, a zero at each end, `np.where` of what differs from its neighbour. Its
zeros are whole numbers of eight bytes, and so becomes the plane; a second side keeps bytes.
pycocotools wants columns, so row-major planes are turned first. Bytes are enlarged on all sides;
with float32 the others would be slower. Ours enlarges log odds, the others what they are given, so
those masks differ in a few pixels of their outlines and their mean Dice is printed; what is encoded
or decoded alone is equal to the bit.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer

from benchmarks import material
from benchmarks.sides import Work, serve, table, take_turns
from converters.masks import CropMask, crop, decode_rle, encode_rle
from fusion.types import Prediction

SIZE_HW = (material.SIDE, material.SIDE)
Planes = list[material.Bytes]


def run(
    images: Annotated[int, typer.Option(help="Hands.")] = 4,
    network: Annotated[str, typer.Option(help="net512a or net1024a.")] = "net512a",
    repetitions: Annotated[int, typer.Option(help="How often all sides run.")] = 5,
    work: Annotated[Path | None, typer.Option(help="Folder to work in; kept.")] = None,
) -> None:
    """Measure enlarging and encoding, encoding alone, and decoding; print tables."""
    with tempfile.TemporaryDirectory() as scratch:
        root = work or Path(scratch)
        data = material.hands(root, -(-images // 2))
        folder = material.stores(root, data, images, images)[0].parent
        for title, sides in JOBS.items():
            jobs = {n: {"title": title, "side": n, "store": str(folder / network)} for n in sides}
            rows = take_turns(__file__, jobs, repetitions)
            lowest = min(float(row.result) for side in rows.values() for row in side)
            if lowest < (0.998 if title == ENLARGE else 1):
                raise SystemExit(f"{title}: the sides differ: Dice {lowest}")
            print(f"\n{title}, {network}\n\n{table(rows, OURS[title])}")
            print(f"\nlowest Dice of two sides' masks: {lowest:.5f}")


# --- the usual numpy code


def encode_usual(plane: material.Bytes) -> str:
    """Encode a plane, uint8 (H, W), as notebooks do."""
    pixels = np.concatenate([[0], plane.flatten(), [0]])
    runs = np.where(pixels[1:] != pixels[:-1])[0] + 1
    runs[1::2] -= runs[::2]
    return " ".join(str(x) for x in runs)


def encode_bytes(plane: material.Bytes) -> str:
    """Encode a plane, uint8 (H, W), by the same idea without its waste."""
    flat = plane.reshape(-1)
    change = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    ends = [np.zeros(int(flat[0]), np.int64), np.full(int(flat[-1]), flat.size)]
    runs = np.concatenate([ends[0], change, ends[1]])
    runs[1::2] -= runs[::2]
    runs[::2] += 1
    return " ".join(map(str, runs.tolist()))


def decode_usual(code: str) -> material.Bytes:
    """Decode to a plane, uint8 (H, W), as notebooks do."""
    numbers = code.split()
    starts, lengths = (np.asarray(x, dtype=int) for x in (numbers[0::2], numbers[1::2]))
    starts -= 1
    plane = np.zeros(SIZE_HW[0] * SIZE_HW[1], np.uint8)
    for low, high in zip(starts, starts + lengths, strict=True):
        plane[low:high] = 1
    return plane.reshape(SIZE_HW)


# --- what the sides start from and do


def _rasters(prediction: Prediction) -> Planes:
    return list(material.raster(prediction, material.output_side(prediction)).values())


def _masks(prediction: Prediction) -> list[CropMask]:
    return [prediction.binary(label) for label in prediction.masks]


def _planes(prediction: Prediction) -> Planes:
    return [mask.full(SIZE_HW) for mask in _masks(prediction)]


def _codes(prediction: Prediction) -> list[str]:
    return [encode_rle(mask, SIZE_HW) for mask in _masks(prediction)]


def _coco_codes(prediction: Prediction) -> list[dict[str, Any]]:
    return [_encode_coco(plane) for plane in _planes(prediction)]


def _encode_coco(plane: material.Bytes) -> dict[str, Any]:
    from pycocotools import mask

    return mask.encode(np.asfortranarray(plane))


def _decode_coco(code: dict[str, Any]) -> material.Bytes:
    from pycocotools import mask

    return mask.decode(code)


def _enlarge(cells: material.Bytes) -> material.Bytes:
    big = cv2.resize(cells, SIZE_HW[::-1], interpolation=cv2.INTER_LINEAR)
    return (big >= 128).astype(np.uint8)


def _all(step: Callable[[Any], Any], values: list[Any]) -> list[Any]:
    return [step(value) for value in values]


def _ours_to_codes(prediction: Prediction) -> list[str]:
    return [encode_rle(prediction.binary(label), SIZE_HW) for label in prediction.masks]


def _agreement(prediction: Prediction, found: list[CropMask]) -> str:
    theirs = dict(zip(prediction.masks, found, strict=True))
    ours = dict(zip(prediction.masks, _masks(prediction), strict=True))
    return str(material.agreement(ours, theirs))


def _judge_codes(prediction: Prediction, found: list[str]) -> str:
    return _agreement(prediction, [crop(decode_usual(code)) for code in found])


def _judge_coco(prediction: Prediction, found: list[dict[str, Any]]) -> str:
    return _agreement(prediction, [crop(_decode_coco(code)) for code in found])


def _judge_planes(prediction: Prediction, found: Planes) -> str:
    return _agreement(prediction, [crop(plane) for plane in found])


def _judge_masks(prediction: Prediction, found: list[CropMask]) -> str:
    return _agreement(prediction, found)


def _as_is(prediction: Prediction) -> Prediction:
    return prediction


def _encode_ours(mask: CropMask) -> str:
    return encode_rle(mask, SIZE_HW)


def _decode_ours(code: str) -> CropMask:
    return decode_rle(code, SIZE_HW)


ENLARGE = "enlarge, cut at one half, encode"
JOBS: dict[str, dict[str, Work]] = {
    ENLARGE: {
        "numpy": Work(_rasters, partial(_all, lambda c: encode_usual(_enlarge(c))), _judge_codes),
        "numpy, bytes": Work(
            _rasters, partial(_all, lambda c: encode_bytes(_enlarge(c))), _judge_codes
        ),
        "pycocotools": Work(
            _rasters, partial(_all, lambda c: _encode_coco(_enlarge(c))), _judge_coco
        ),
        "ours": Work(_as_is, _ours_to_codes, _judge_codes),
    },
    "encode alone": {
        "numpy": Work(_planes, partial(_all, encode_usual), _judge_codes),
        "numpy, bytes": Work(_planes, partial(_all, encode_bytes), _judge_codes),
        "pycocotools": Work(_planes, partial(_all, _encode_coco), _judge_coco),
        "ours, from planes": Work(
            _planes, partial(_all, lambda p: _encode_ours(crop(p))), _judge_codes
        ),
        "ours": Work(_masks, partial(_all, _encode_ours), _judge_codes),
    },
    "decode": {
        "numpy": Work(_codes, partial(_all, decode_usual), _judge_planes),
        "pycocotools": Work(_coco_codes, partial(_all, _decode_coco), _judge_planes),
        "ours, to planes": Work(
            _codes, partial(_all, lambda c: _decode_ours(c).full(SIZE_HW)), _judge_planes
        ),
        "ours": Work(_codes, partial(_all, _decode_ours), _judge_masks),
    },
}
OURS = {title: [n for n in sides if n.startswith("ours")] for title, sides in JOBS.items()}


def _main(job: dict[str, str]) -> None:
    images = [found for (found,) in material.predictions([job["store"]])]
    serve(JOBS[job["title"]][job["side"]], images)


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
