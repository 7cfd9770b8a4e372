"""Swin2SR (Conde et al. 2022, arXiv:2209.11345), super-resolution of transformers.

Written as `swin2sr:` with a folder of `config.json` and `model.safetensors`, or with a name on the
Hugging Face hub, such as `swin2sr:caidas/swin2SR-classical-sr-x2-64` (Apache-2.0): the weights are
fetched when it is asked for, and kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import numpy.typing as npt

from converters.errors import import_optional

PREFIX = "swin2sr:"
Values = npt.NDArray[np.float32]


def open_swin2sr(source: str) -> Callable[[Values], Values]:
    """Return the network as a function of float32 (1, C, h, w) to (1, C, s * h, s * w), on the CPU.

    Args:
        source: `swin2sr:` with a folder or a name on the hub.

    Raises:
        ValueError: the weights cannot be had, are not safetensors, or are of another network.
        MissingDependency: torch or transformers are not installed.
    """
    torch = import_optional("torch", "train")
    transformers = import_optional("transformers", "train")
    # Late, as torch is: it imports transformers.
    from zoo.families.hub import load_pretrained

    name = source.removeprefix(PREFIX)
    model = transformers.Swin2SRForImageSuperResolution
    network, info = load_pretrained(model, name, "another --enlarger", dtype=torch.float32)
    if wrong := sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}):
        raise ValueError(
            f"{source}: expected weights of a Swin2SR, found others: {len(wrong)} differ, such as "
            f"'{wrong[0]}'"
        )
    window, factor = network.config.window_size, network.config.upscale
    network.eval()

    def run(values: Values) -> Values:
        height, width = values.shape[2:]
        # The network fails by itself where windows do not fill the image.
        lacks = [(0, 0), (0, 0), (0, -height % window), (0, -width % window)]
        padded = np.pad(values, lacks, mode="reflect")
        with torch.inference_mode():
            large = network(torch.from_numpy(padded)).reconstruction.numpy()
        return cast("Values", large[:, :, : factor * height, : factor * width])

    return run
