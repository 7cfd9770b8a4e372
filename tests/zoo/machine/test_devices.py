from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from zoo.machine import devices
from zoo.machine.devices import (
    autocast,
    choose_device,
    choose_precision,
    is_convolutional,
    multiplies_bfloat16,
    narrow_strides,
    place,
    runs_on,
    settle_precision,
)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_70", "sm_80"])


@pytest.mark.parametrize(
    ("capability", "precision"),
    [
        ((6, 1), "32-true"),
        ((7, 0), "16-mixed"),
        ((7, 5), "16-mixed"),
        ((8, 0), "bf16-mixed"),
        ((9, 0), "bf16-mixed"),
        ((12, 0), "bf16-mixed"),
    ],
)
def test_capability_decides(
    gpu: None, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    assert choose_precision(torch.device("cuda")) == precision


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The processor is asked, once more."""
    multiplies_bfloat16.cache_clear()
    monkeypatch.setattr(devices, "multiplies_bfloat16", multiplies_bfloat16)
    yield
    multiplies_bfloat16.cache_clear()


@pytest.mark.parametrize(
    ("has_onednn", "told_by", "learns_in"),
    [
        (True, (), "32-true"),
        (True, ("_is_avx512_bf16_supported",), "bf16-mixed"),
        (True, ("_is_amx_tile_supported",), "bf16-mixed"),
        (False, ("_is_avx512_bf16_supported",), "32-true"),
    ],
)
def test_a_processor_learns_in_what_it_multiplies_and_predicts_alike_everywhere(
    asked: None,
    monkeypatch: pytest.MonkeyPatch,
    has_onednn: bool,
    told_by: tuple[str, ...],
    learns_in: str,
) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda yes=name in told_by: yes, raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: has_onednn)
    cpu = torch.device("cpu")
    assert choose_precision(cpu) == settle_precision("auto", cpu) == learns_in
    assert settle_precision("auto", cpu, predicts=True) == "32-true"
    assert settle_precision("bf16-mixed", cpu, predicts=True) == "bf16-mixed"
    assert settle_precision("32-true", cpu) == "32-true"


def test_a_pytorch_that_does_not_tell_learns_in_full_precision(
    asked: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert choose_precision(torch.device("cpu")) == "32-true"


def test_a_gpu_predicts_as_it_learns(gpu: None) -> None:
    device = torch.device("cuda")
    assert settle_precision("auto", device) == "16-mixed"
    assert settle_precision("auto", device, predicts=True) == "16-mixed"


def test_convolutional_networks_are_told_from_others() -> None:
    network = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1))
    assert is_convolutional(network)
    assert not is_convolutional(nn.TransformerEncoderLayer(16, 2))


@pytest.mark.parametrize("has_onednn", [True, False])
def test_convolutions_lie_as_they_are_fastest(
    monkeypatch: pytest.MonkeyPatch, has_onednn: bool
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: has_onednn)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    network = place(nn.Conv2d(4, 4, 3), torch.device("cpu"))
    assert network.weight.is_contiguous(memory_format=torch.channels_last) is has_onednn
    mostly_not = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Linear(64, 64))
    kernel = place(mostly_not, torch.device("cpu"))[0].weight
    assert not kernel.is_contiguous(memory_format=torch.channels_last)


def test_only_what_was_measured_is_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    kernel = place(nn.Conv2d(4, 4, 3), torch.device("cpu")).weight
    assert not kernel.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("part", "breaks"),
    [
        (nn.Conv2d(8, 8, 1, stride=2), True),
        (nn.Conv2d(64, 64, 1, stride=2, groups=8), True),
        (nn.Conv2d(16, 8, 1, stride=2), False),
        (nn.Conv2d(8, 8, 1), False),
        (nn.Conv2d(8, 8, 3, stride=2), False),
    ],
)
def test_where_the_library_would_write_beyond_its_memory_the_order_stays(
    monkeypatch: pytest.MonkeyPatch, part: nn.Module, breaks: bool
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    network = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Sequential(part))
    assert list(narrow_strides(network)) == (["1.0"] if breaks else [])
    kernel = place(network, torch.device("cpu"))[0].weight
    assert kernel.is_contiguous(memory_format=torch.channels_last) is not breaks


def test_auto_takes_the_gpu(gpu: None) -> None:
    assert choose_device("auto") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")


def test_auto_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(ValueError, match="finds no GPU; use cpu"):
        choose_device("cuda")


def test_a_gpu_that_the_build_lacks(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_90"])
    with pytest.raises(ValueError, match=r"Tesla V100 is sm_70, but .* sm_75, sm_80, sm_90;"):
        choose_device("auto")


@pytest.mark.parametrize(
    ("name", "message"),
    [("cuda:2", "expected cuda:0 to cuda:1"), ("gpu", "expected auto, cpu, cuda")],
)
def test_no_such_device(gpu: None, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose_device(name)


@pytest.mark.parametrize(
    ("capability", "built_for", "fits"),
    [
        ((8, 6), ["sm_80"], True),
        ((8, 0), ["sm_86"], False),
        ((9, 0), ["sm_80"], False),
        ((9, 0), ["compute_80"], True),
        ((9, 0), ["sm_90a"], True),
        ((10, 0), ["sm_90a", "compute_90a"], False),
        ((12, 0), ["sm_120"], True),
        ((7, 0), ["gfx900"], False),
        ((7, 0), [], False),
    ],
)
def test_binary_compatibility(
    capability: tuple[int, int], built_for: list[str], fits: bool
) -> None:
    assert runs_on(capability, built_for) is fits


def test_autocast_is_off_in_full_precision() -> None:
    values = torch.ones(2, 2)
    with autocast(torch.device("cpu"), "32-true"):
        assert (values @ values).dtype == torch.float32
    with autocast(torch.device("cpu"), "bf16-mixed"):
        assert (values @ values).dtype == torch.bfloat16
