from __future__ import annotations

import pickle
import warnings
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

import converters
from converters.crops import crop
from converters.files.images import lanczos, read_pixels
from zoo.datasets.upscale import ModelEnlarger, load_enlarger

# Two networks that repeat every pixel: `grey_x2.onnx` of one channel, and `rgb_x2.onnx` of three,
# which it weights by 1, 1/2 and 1/4 first. Made with onnx 1.23 (opset 17) of the nodes
#     Conv(x, kernel), kernel (C, C, 1, 1) with the weights on its diagonal
#     Resize(..., scales=[1, 1, 2, 2], mode="nearest", nearest_mode="floor",
#            coordinate_transformation_mode="asymmetric")
# and free heights and widths.
ONNX = Path(__file__).parent / "enlargers"
WEIGHTS = (1.0, 0.5, 0.25)  # of red, green, blue


class Repeat(nn.Module):
    """The same network for torch."""

    def __init__(self, weights: tuple[float, ...], factor: int = 2) -> None:
        super().__init__()
        self.kernel = nn.Conv2d(len(weights), len(weights), 1, bias=False)
        with torch.no_grad():
            self.kernel.weight.copy_(torch.diag(torch.tensor(weights))[:, :, None, None])
        self.grow = nn.Upsample(scale_factor=factor, mode="nearest")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.grow(self.kernel(x))


class Fixed(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def save_script(network: nn.Module, path: Path, channels: int = 1) -> Path:
    with warnings.catch_warnings(action="ignore"):
        traced = torch.jit.trace(network.eval(), torch.rand(1, channels, 64, 64), check_trace=False)
        traced.save(str(path))
    return path


@pytest.fixture(params=["onnx", "torchscript"])
def grey(request, tmp_path) -> Path:
    if request.param == "onnx":
        return ONNX / "grey_x2.onnx"
    return save_script(Repeat((1.0,)), tmp_path / "grey.ts")


@pytest.fixture(params=["onnx", "torchscript"])
def colour(request, tmp_path) -> Path:
    if request.param == "onnx":
        return ONNX / "rgb_x2.onnx"
    return save_script(Repeat(WEIGHTS), tmp_path / "rgb.pt", 3)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def repeated(pixels: np.ndarray) -> np.ndarray:
    return pixels.repeat(2, axis=0).repeat(2, axis=1)


def test_channels_and_factor_are_found_out(grey, colour):
    assert load_enlarger(grey) == ModelEnlarger(grey, 1, 2)
    assert load_enlarger(colour) == ModelEnlarger(colour, 3, 2)


@pytest.mark.parametrize("size_hw", [(7, 12), (33, 5)])
def test_grey_pixels_become_the_networks(grey, size_hw):
    pixels = noise(*size_hw)
    large = load_enlarger(grey)(pixels, (2 * size_hw[0], 2 * size_hw[1]))
    assert large.dtype == np.uint8
    np.testing.assert_array_equal(large, repeated(pixels))


def test_colours_of_a_grey_network_keep_their_places(grey):
    pixels = noise(7, 9, 3)
    np.testing.assert_array_equal(load_enlarger(grey)(pixels, (14, 18)), repeated(pixels))


def test_a_colour_network_sees_red_first(colour):
    pixels = noise(7, 9, 3)
    expected = np.rint(repeated(pixels) * np.array(WEIGHTS[::-1])).astype(int)
    large = load_enlarger(colour)(pixels, (14, 18))
    assert np.abs(large - expected).max() <= 1  # halves may be rounded either way


@pytest.mark.parametrize("depth", [(), (3,)])
def test_grey_stays_grey_in_a_colour_network(colour, depth):
    plane = noise(7, 9)
    pixels = plane if not depth else np.repeat(plane[..., None], 3, axis=2)
    large = load_enlarger(colour)(pixels, (14, 18))
    assert large.shape == (14, 18, *depth)
    if depth:
        assert (large == large[..., :1]).all()
    mean = np.rint(repeated(plane) * (sum(WEIGHTS) / 3)).astype(int)
    assert np.abs((large[..., 0] if depth else large) - mean).max() <= 1


@pytest.mark.parametrize(
    ("size_hw", "way"), [((21, 30), cv2.INTER_LANCZOS4), ((10, 15), cv2.INTER_AREA)]
)
def test_another_size_than_the_networks(grey, size_hw, way):
    pixels = noise(7, 10)
    expected = cv2.resize(repeated(pixels), size_hw[::-1], interpolation=way)
    np.testing.assert_array_equal(load_enlarger(grey)(pixels, size_hw), expected)


def test_values_beyond_the_range_are_cut(tmp_path):
    path = save_script(Repeat((3.0,)), tmp_path / "bright.ts")
    large = load_enlarger(path)(np.array([[10, 200]], np.uint8), (2, 4))
    np.testing.assert_array_equal(large, [[30, 30, 255, 255]] * 2)


def test_travels_as_its_path(grey):
    enlarge = load_enlarger(grey)
    text = pickle.dumps(enlarge)
    assert len(text) < 1000
    pixels = noise(5, 5)
    np.testing.assert_array_equal(pickle.loads(text)(pixels, (10, 10)), repeated(pixels))


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.slow
def test_crops_are_written_by_the_model(grey, jobs, toys, tmp_path):
    labels = toys.labels
    parts = crop(toys.samples[:3], ["tile-1", "tile-4"], 4, labels, scale=2)
    converters.write(
        *(parts, tmp_path / "out"),
        format="masks",
        labels=labels,
        jobs=jobs,
        enlarge=load_enlarger(grey),
    )
    back = converters.read(tmp_path / "out", labels=labels)
    for part, found in zip(parts, back, strict=True):
        x, y, width, height = part.frame.box_xywh
        window = cv2.imread(str(part.image), cv2.IMREAD_GRAYSCALE)[y : y + height, x : x + width]
        np.testing.assert_array_equal(read_pixels(found), repeated(window))
        assert (read_pixels(found) != lanczos(window, found.size_hw)).any()


# --- files that are no such models


def test_missing_file_and_other_suffixes(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.onnx: expected an enlarger's file"):
        load_enlarger(tmp_path / "gone.onnx")
    with pytest.raises(
        ValueError, match=r"expected an enlarger as \.onnx, \.pt, \.ts or swin2sr:NAME"
    ):
        load_enlarger(tmp_path / "model.pth")


class Dangerous:
    def __reduce__(self):
        return Path.touch, (Path(self.place),)


@pytest.mark.parametrize("save", ["torch.save", "pickle"])
def test_a_pickle_is_refused_and_never_loaded(save, tmp_path):
    dangerous = Dangerous()
    dangerous.place = str(tmp_path / "touched")
    path = tmp_path / "model.pt"
    if save == "pickle":
        path.write_bytes(pickle.dumps(dangerous))
        words = "expected TorchScript, found another file"
    else:
        torch.save(dangerous, path)
        words = r"expected TorchScript, found a checkpoint of torch\.save: export"
    with pytest.raises(ValueError, match=words):
        load_enlarger(path)
    assert not (tmp_path / "touched").exists()


def test_a_pickle_inside_a_script_is_never_run(tmp_path):
    import zipfile

    dangerous = Dangerous()
    dangerous.place = str(tmp_path / "touched")
    good = save_script(Repeat((1.0,)), tmp_path / "good.ts")
    bad = tmp_path / "bad.ts"
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
        for name in source.namelist():
            swapped = name.endswith(("/data.pkl", "/constants.pkl"))
            content = pickle.dumps(dangerous, 2) if swapped else source.read(name)
            target.writestr(name, content)
    with pytest.raises(ValueError, match=r"bad\.ts: expected TorchScript"):
        load_enlarger(bad)
    assert not (tmp_path / "touched").exists()


def test_broken_files(tmp_path):
    for name, words in {"a.onnx": "expected an ONNX model", "a.ts": "found another file"}.items():
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(ValueError, match=words):
            load_enlarger(tmp_path / name)


def test_a_replaced_model_is_not_the_one_before(tmp_path):
    path = save_script(Fixed(lambda x: x.repeat(1, 1, 2, 2)), tmp_path / "model.ts")
    assert load_enlarger(path).factor == 2
    path.unlink()
    save_script(Fixed(lambda x: x.repeat(1, 1, 3, 3)), path)
    assert load_enlarger(path).factor == 3


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: x[:, :, ::2, ::2], r"gives \(1, 3, 32, 32\)"),
        (lambda x: x.flatten(), "s \\* h, s \\* w"),
        (lambda x: x.repeat(1, 2, 2, 2), r"gives \(1, 6, 128, 128\)"),
        (lambda x: x.repeat(1, 1, 2, 3), r"gives \(1, 3, 128, 192\)"),
    ],
)
def test_networks_of_another_contract(function, words, tmp_path):
    path = save_script(Fixed(function), tmp_path / "odd.ts")
    with pytest.raises(ValueError, match=words):
        load_enlarger(path)


def test_a_network_of_one_size_says_so(tmp_path):
    only = torch.ones(1, 1, 64, 64)
    path = save_script(Fixed(lambda x: x * only), tmp_path / "one.ts")
    enlarge = load_enlarger(path)
    with pytest.raises(ValueError, match=r"images of any size, failed on \(1, 3, 5, 7\)"):
        enlarge(noise(5, 7), (5, 7))


def test_values_that_are_no_numbers(tmp_path):
    path = save_script(Fixed(lambda x: (x - x) / (x - x)), tmp_path / "nan.ts")
    with pytest.raises(ValueError, match="expected finite values, found NaN"):
        replace(load_enlarger(path))(noise(5, 7), (5, 7))
