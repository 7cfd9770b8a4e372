from __future__ import annotations

import pytest
import torch

from zoo.machine.devices import autocast, choose_device, choose_precision, runs_on


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


def test_cpu_is_full_precision() -> None:
    assert choose_precision(torch.device("cpu")) == "32-true"


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
