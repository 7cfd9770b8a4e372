from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from zoo.machine.doctor import Advice, describe, diagnose, has_failed, to_json
from zoo.machine.facts import Facts, Gpu, Package, Torch, collect, normalise

GB = 10**9
V100 = Gpu("Tesla V100-SXM2-32GB", (7, 0), 34 * GB, 34 * GB)
A100 = Gpu("NVIDIA A100-SXM4-80GB", (8, 0), 85 * GB, 84 * GB)
OLD = Torch("2.14.1+cu126", "12.6", ("sm_50", "sm_60", "sm_70", "sm_80", "sm_90"), True, 16)
NEW = Torch("2.15.0+cu132", "13.2", ("sm_75", "sm_80", "sm_90", "sm_100", "sm_120"), True, 16)
CPU = Torch("2.15.0+cpu", None, (), False, 16)


def _packages(**versions: str) -> dict[str, Package]:
    return {normalise(n): Package(normalise(n), v, "MIT") for n, v in versions.items()}


HEALTHY = Facts(
    python="3.12.1",
    torch=OLD,
    torch_error="",
    gpus=(V100,),
    ram=256 * GB,
    ram_free=200 * GB,
    shared=64 * GB,
    disk_free=900 * GB,
    disk="runs",
    cores=16,
    packages=_packages(numpy="2.1.0", torch="2.14.1"),
    requirements={"": ("numpy>=1.26",), "train": ("torch>=2.4",)},
    opencv=("opencv-python-headless",),
)


def _find(facts: Facts, topic: str) -> list[Advice]:
    return [finding for finding in diagnose(facts) if finding.topic == topic]


def _one(facts: Facts, topic: str) -> Advice:
    (found,) = _find(facts, topic)
    return found


def test_a_healthy_computer() -> None:
    findings = diagnose(HEALTHY)
    assert {finding.level for finding in findings} == {"ok"}
    assert {finding.remedy for finding in findings} == {""}


# --- GPUs


@pytest.mark.parametrize(
    ("torch", "gpu", "level", "text"),
    [
        (OLD, V100, "ok", "sm_70, 34.0 GB; trains in 16-mixed"),
        (OLD, A100, "ok", "trains in bf16-mixed"),
        (NEW, A100, "ok", "trains in bf16-mixed"),
        (NEW, V100, "fail", r"built for sm_75, sm_80, sm_90, sm_100, sm_120"),
        (OLD, replace(V100, capability=(6, 1)), "ok", "trains in 32-true"),
        (CPU, V100, "fail", "PyTorch is built without CUDA"),
        (replace(OLD, sees_gpus=False, built_for=()), V100, "fail", "does not find it"),
        (OLD, replace(V100, free=3 * GB), "warn", "3.0 GB are free"),
        (OLD, replace(V100, total=6 * GB, free=6 * GB), "warn", "6.0 GB"),
        (OLD, replace(V100, free=None), "ok", "trains in 16-mixed"),
    ],
)
def test_a_gpu(torch: Torch, gpu: Gpu, level: str, text: str) -> None:
    found = _one(replace(HEALTHY, torch=torch, gpus=(gpu,)), "gpu 0")
    assert found.level == level
    assert text in found.text
    assert bool(found.remedy) == (level != "ok")


def test_a_v100_is_told_which_build_has_it() -> None:
    found = _one(replace(HEALTHY, torch=NEW), "gpu 0")
    assert "PyTorch 2.14 or older for CUDA 12.6" in found.remedy
    assert "torch<2.15" in found.remedy


def test_each_gpu_has_a_line() -> None:
    facts = replace(HEALTHY, torch=NEW, gpus=(A100, V100))
    assert [_one(facts, f"gpu {i}").level for i in range(2)] == ["ok", "fail"]


def test_without_a_gpu() -> None:
    assert _one(replace(HEALTHY, gpus=()), "gpu").level == "warn"


def test_without_torch() -> None:
    facts = replace(HEALTHY, torch=None)
    assert _one(facts, "torch").level == "warn"
    assert "maskzoo[train]" in _one(facts, "torch").remedy
    assert _one(facts, "gpu 0").level == "ok"
    assert not has_failed(diagnose(facts))


def test_a_torch_that_is_broken() -> None:
    facts = replace(HEALTHY, torch=None, torch_error="ImportError: libcudart.so.12")
    assert _one(facts, "torch").level == "fail"
    assert "libcudart" in _one(facts, "torch").text


# --- the rest of the computer


@pytest.mark.parametrize(
    ("changes", "topic", "level"),
    [
        ({"python": "3.10.4"}, "python", "fail"),
        ({"ram": 4 * GB}, "memory", "warn"),
        ({"ram": 8 * GB, "ram_free": None}, "memory", "ok"),
        ({"disk_free": 10 * GB}, "disk", "warn"),
        ({"disk_free": GB // 2}, "disk", "fail"),
        ({"cores": 4}, "cpu", "warn"),
        ({"cores": 1, "torch": None}, "cpu", "ok"),
    ],
)
def test_levels(changes: Any, topic: str, level: str) -> None:
    found = _one(replace(HEALTHY, **changes), topic)
    assert found.level == level
    assert bool(found.remedy) == (level != "ok")


def test_unknown_memory_is_no_finding() -> None:
    assert _find(replace(HEALTHY, ram=None, shared=None), "memory") == []


def test_a_container_with_little_shared_memory() -> None:
    found = _find(replace(HEALTHY, shared=64 * 10**6), "memory")
    assert [finding.level for finding in found] == ["ok", "warn"]
    assert "--shm-size" in found[1].remedy


# --- libraries


@pytest.mark.parametrize(
    ("packages", "topic", "level", "text"),
    [
        ({"numpy": "1.20", "torch": "2.6"}, "libraries", "fail", "numpy>=1.26, found 1.20"),
        ({"torch": "2.6"}, "libraries", "fail", "missing: numpy"),
        ({"numpy": "2.0", "torch": "2.0.1+cu118"}, "extra train", "warn", "found 2.0.1+cu118"),
        ({"numpy": "2.0", "torch": "2.7.0+cu126"}, "extra train", "ok", "1 installed"),
        ({"numpy": "2.0", "torch": "2.9.0.dev1"}, "extra train", "ok", "1 installed"),
        ({"numpy": "2.0"}, "extra train", "ok", "not installed"),
    ],
)
def test_versions(packages: dict[str, str], topic: str, level: str, text: str) -> None:
    found = _one(replace(HEALTHY, packages=_packages(**packages)), topic)
    assert found.level == level
    assert text in found.text


def test_half_an_extra_is_told() -> None:
    facts = replace(HEALTHY, requirements={"": (), "train": ("torch>=2.4", "timm>=1.0")})
    found = _one(facts, "extra train")
    assert found.text == "1 of 2 installed; missing: timm"
    assert "maskzoo[train]" in found.remedy


def test_opencv_twice() -> None:
    both = ("opencv-python", "opencv-python-headless")
    found = _one(replace(HEALTHY, opencv=both), "opencv")
    assert found.level == "warn"
    uninstall, install = found.remedy.split(" && ")
    assert uninstall == "pip uninstall -y opencv-python opencv-python-headless"
    assert install == "pip install opencv-python-headless"


@pytest.mark.parametrize(
    ("licence", "said"),
    [
        ("AGPL-3.0-or-later", "AGPL-3.0"),
        ("GNU Affero General Public License v3", "AGPL-3.0"),
        ("CC BY-NC 4.0", "not for commercial use"),
        ("CC-BY-NC-SA-4.0", "not for commercial use"),
        ("Free for non-commercial use", "not for commercial use"),
        ("LGPL-3.0", None),
        ("GNU General Public License v3", None),
        ("CC-BY-4.0", None),
        ("BSD-3-Clause", None),
    ],
)
def test_licences(licence: str, said: str | None) -> None:
    packages = {**HEALTHY.packages, "detector": Package("detector", "8.3", licence)}
    found = [f for f in _find(replace(HEALTHY, packages=packages), "licences") if f.level != "ok"]
    assert len(found) == (said is not None)
    if said:
        assert said in found[0].text
        assert "detector 8.3" in found[0].text


@pytest.mark.parametrize(
    ("environment", "level", "text"),
    [
        ({}, "ok", "no switch is set; pretrained weights are fetched"),
        ({"HF_HUB_OFFLINE": "1"}, "ok", "are not fetched"),
        ({"HF_HUB_OFFLINE": "0"}, "ok", "are fetched"),
        ({"WANDB_MODE": "online"}, "warn", "WANDB_MODE=online"),
        ({"WANDB_MODE": "offline", "WANDB_API_KEY": "set"}, "ok", "WANDB_API_KEY=set"),
    ],
)
def test_network(environment: dict[str, str], level: str, text: str) -> None:
    found = _one(replace(HEALTHY, environment=environment), "network")
    assert found.level == level
    assert text in found.text


# --- what is written


def test_lines_have_their_remedy_below() -> None:
    text = describe([Advice("ok", "cpu", "2 cores"), Advice("fail", "disk", "full", "make room")])
    assert text.splitlines() == [
        "ok    cpu   2 cores",
        "fail  disk  full",
        "            -> make room",
    ]


def test_json() -> None:
    facts = replace(HEALTHY, torch=NEW)
    record = json.loads(to_json(facts, diagnose(facts)))
    assert record["failed"] is True
    assert {"level", "topic", "text", "remedy"} == set(record["findings"][0])
    assert record["facts"]["gpus"][0]["capability"] == [7, 0]
    assert record["facts"]["packages"]["numpy"]["licence"] == "MIT"


# --- this computer


@pytest.mark.slow
def test_this_computer(tmp_path: Path) -> None:
    facts = collect(tmp_path)
    assert facts.torch is not None
    assert facts.cores >= 1
    assert facts.disk_free > 0
    assert facts.ram is not None
    assert facts.ram > 2**28
    assert facts.packages["numpy"].licence != "not stated"
    assert any(text.startswith("torch>=") for text in facts.requirements["train"])
    assert not any(text.startswith("torch>=") for text in facts.requirements[""])
    assert facts.opencv
    assert len(diagnose(facts)) > 8


@pytest.mark.slow
def test_agpl_is_seen_where_it_is_installed(tmp_path: Path) -> None:
    packages = collect(tmp_path).packages
    found = [name for name, p in packages.items() if name.startswith("ultralytics")]
    if not found:
        pytest.skip("ultralytics is not installed")
    assert any(
        "AGPL" in packages[name].licence or "Affero" in packages[name].licence for name in found
    )


@pytest.mark.slow
def test_secrets_are_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "SECRET")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:SECRET@host")
    monkeypatch.setenv("WANDB_MODE", "offline")
    found = collect(tmp_path).environment
    assert found["WANDB_API_KEY"] == found["MLFLOW_TRACKING_URI"] == "set"
    assert found["WANDB_MODE"] == "offline"


@pytest.mark.slow
def test_the_driver_answers_where_torch_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\necho "Tesla V100, SXM2, 7.0, 32768, 32500"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (gpu,) = collect(tmp_path).gpus
    assert gpu == Gpu("Tesla V100, SXM2", (7, 0), 32768 * 2**20, 32500 * 2**20)


@pytest.mark.parametrize("answer", ["echo no devices", "exit 9", "echo 'A, [N/A], 1, 2'"])
@pytest.mark.slow
def test_a_driver_without_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{answer}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert collect(tmp_path).gpus == ()


@pytest.mark.slow
def test_gpus_through_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    class About:
        name, major, minor, total_memory = "Tesla V100", 7, 0, 34 * GB

    def refuse(number: int) -> Any:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: list(NEW.built_for))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: About)
    monkeypatch.setattr(torch.cuda, "mem_get_info", refuse)
    facts = collect(tmp_path)
    assert facts.gpus == (Gpu("Tesla V100", (7, 0), 34 * GB, None),)
    assert _one(facts, "gpu 0").level == "fail"


@pytest.mark.slow
def test_it_works_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from zoo.machine.doctor import describe, diagnose\n"
        "from zoo.machine.facts import collect\n"
        f"print(describe(diagnose(collect(Path({str(tmp_path)!r})))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" in done.stdout
    assert "is not installed: convert, fuse, evaluate and check work" in done.stdout
