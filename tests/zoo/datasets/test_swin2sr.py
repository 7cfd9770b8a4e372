"""Swin2SR as a model that enlarges: tiny ones of random weights, from a folder."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    SegformerConfig,
    SegformerForSemanticSegmentation,
    Swin2SRConfig,
    Swin2SRForImageSuperResolution,
)

import converters
from converters.crops import crop
from converters.files.images import lanczos, read_pixels
from zoo.datasets.upscale import ModelEnlarger, load_enlarger
from zoo.run_files.licences import of_hub

pytestmark = pytest.mark.slow

TINY = {"embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}


def _network(**changes: Any) -> Swin2SRForImageSuperResolution:
    torch.manual_seed(0)
    return Swin2SRForImageSuperResolution(Swin2SRConfig(**{**TINY, **changes})).eval()


def _noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("upsampler", ["pixelshuffle", "pixelshuffledirect", "pixelshuffle_aux"])
@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_channels_and_factor_are_found_out(
    channels: int, factor: int, upsampler: str, tmp_path: Path
) -> None:
    if channels == 1 and upsampler == "pixelshuffle_aux":
        pytest.skip("transformers' is of colours alone")
    network = _network(num_channels=channels, upscale=factor, upsampler=upsampler)
    network.save_pretrained(tmp_path / "x")
    source = f"swin2sr:{tmp_path / 'x'}"
    assert load_enlarger(source) == ModelEnlarger(source, channels, factor)


@pytest.mark.parametrize("size_hw", [(8, 12), (7, 13), (3, 5), (1, 1)])
def test_pixels_become_the_networks(size_hw: tuple[int, int], tmp_path: Path) -> None:
    """Also where windows do not fill the image, on which transformers' network fails by itself."""
    network = _network()
    network.save_pretrained(tmp_path / "x2")
    pixels = _noise(*size_hw, 3)
    height, width = size_hw
    lacks = ((0, -height % 4), (0, -width % 4), (0, 0))
    given = torch.from_numpy(np.pad(pixels, lacks, mode="reflect")[..., ::-1].copy())
    with torch.no_grad():
        large = network(given.permute(2, 0, 1)[None] / 255).reconstruction[0]
    expected = (large[:, : 2 * height, : 2 * width].clamp(0, 1) * 255).round().permute(1, 2, 0)
    found = load_enlarger(f"swin2sr:{tmp_path / 'x2'}")(pixels, (2 * height, 2 * width))
    assert found.dtype == np.uint8
    assert found.std() > 0
    assert np.abs(found.astype(int) - expected.numpy()[..., ::-1]).max() <= 1


def test_travels_as_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _network().save_pretrained(tmp_path / "x2")
    monkeypatch.chdir(tmp_path)
    enlarge = load_enlarger("swin2sr:x2")
    monkeypatch.chdir("/")
    text = pickle.dumps(enlarge)
    assert len(text) < 1000
    pixels = _noise(8, 8)
    np.testing.assert_array_equal(pickle.loads(text)(pixels, (16, 16)), enlarge(pixels, (16, 16)))


def test_crops_are_written_by_the_network(toys: Any, tmp_path: Path) -> None:
    _network().save_pretrained(tmp_path / "x2")
    enlarge = load_enlarger(f"swin2sr:{tmp_path / 'x2'}")
    parts = crop(toys.samples[:1], ["tile-1"], 4, toys.labels, scale=2)
    converters.write(parts, tmp_path / "out", format="masks", labels=toys.labels, enlarge=enlarge)
    (found,) = converters.read(tmp_path / "out", labels=toys.labels)
    x, y, width, height = parts[0].frame.box_xywh
    window = read_pixels(toys.samples[0])[y : y + height, x : x + width]
    np.testing.assert_array_equal(read_pixels(found), enlarge(window, found.size_hw))
    assert (read_pixels(found) != lanczos(window, found.size_hw)).any()


# --- what is no such network


def _refused(source: str) -> str:
    with pytest.raises(ValueError, match=r"expected|could not get") as caught:
        load_enlarger(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_name_that_cannot_be_had() -> None:
    message = _refused("swin2sr:nobody/has-this")
    assert "could not get this Swin2SR (config.json, model.safetensors)" in message
    assert "set another --enlarger" in message


def test_a_folder_without_safetensors(tmp_path: Path) -> None:
    network = _network()
    network.config.save_pretrained(tmp_path)
    torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")
    assert "model.safetensors" in _refused(f"swin2sr:{tmp_path}")


def test_weights_of_other_dimensions(tmp_path: Path) -> None:
    _network().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"embed_dim": 16}))
    assert "expected weights of a Swin2SR, found others" in _refused(f"swin2sr:{tmp_path}")


def test_weights_of_another_network(tmp_path: Path) -> None:
    sizes = {"hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1], "decoder_hidden_size": 8}
    other = SegformerForSemanticSegmentation(SegformerConfig(**sizes, num_attention_heads=[1] * 4))
    other.save_pretrained(tmp_path)
    _refused(f"swin2sr:{tmp_path}")


def test_the_licence_of_the_authors_weights() -> None:
    found = of_hub("caidas/swin2SR-classical-sr-x2-64")
    assert (found.licence, found.is_non_commercial) == ("Apache-2.0", False)
