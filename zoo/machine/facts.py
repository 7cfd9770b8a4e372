"""The facts about a computer that decide what runs on it; nothing here judges them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from converters.errors import one_line

# Switches that decide whether libraries reach for a network. Only whether they are set is told:
# addresses may hold passwords.
SWITCHES = (
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "HF_HUB_DISABLE_TELEMETRY",
    "DO_NOT_TRACK",
    "WANDB_MODE",
    "WANDB_API_KEY",
    "MLFLOW_TRACKING_URI",
    "YOLO_OFFLINE",
)


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        name: as its driver says.
        capability: of computing, such as (7, 0).
        total: its memory in bytes.
        free: the part that nobody uses; None where unknown.
    """

    name: str
    capability: tuple[int, int]
    total: int
    free: int | None = None


@dataclass(frozen=True)
class Torch:
    """A PyTorch that can be imported.

    Attributes:
        version: such as `2.7.1+cu126`.
        cuda: the CUDA that it is built for; None for none.
        built_for: such as `sm_70`, `compute_90`.
        sees_gpus: whether it finds any.
        threads: that it computes with on the CPU.
        precision: in which networks train there by default.
    """

    version: str
    cuda: str | None
    built_for: tuple[str, ...]
    sees_gpus: bool
    threads: int
    precision: str = "32-true"


@dataclass(frozen=True)
class Package:
    """An installed distribution, by its normalised name."""

    name: str
    version: str
    licence: str


@dataclass(frozen=True)
class Facts:
    """What was found.

    Attributes:
        python: its version.
        torch: None where it is not installed.
        torch_error: why it is installed and cannot be imported.
        gpus: as PyTorch sees them; as the driver does where PyTorch sees none.
        ram: bytes that processes here may have; None where unknown.
        ram_free: the part that nobody uses.
        shared: bytes of /dev/shm, through which loader processes hand over batches.
        disk_free: bytes at `disk`.
        disk: a folder.
        cores: that processes here may use.
        packages: installed distributions, by normalised name.
        requirements: extra ("" is none) -> requirements as pip writes them.
        opencv: distributions that bring the module cv2.
        environment: those of `SWITCHES` that are set -> value; of secrets and addresses, "set".
    """

    python: str
    torch: Torch | None
    torch_error: str
    gpus: tuple[Gpu, ...]
    ram: int | None
    ram_free: int | None
    shared: int | None
    disk_free: int
    disk: str
    cores: int
    packages: Mapping[str, Package]
    requirements: Mapping[str, tuple[str, ...]]
    opencv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def collect(folder: Path) -> Facts:
    """Find out about this computer; nothing is sent anywhere, and PyTorch may be missing."""
    torch, error, gpus = _read_torch()
    return Facts(
        python=".".join(map(str, sys.version_info[:3])),
        torch=torch,
        torch_error=error,
        gpus=gpus or list_gpus(),
        ram=read_ram(),
        ram_free=read_free_ram(),
        shared=shutil.disk_usage("/dev/shm").total if Path("/dev/shm").is_dir() else None,
        disk_free=shutil.disk_usage(folder).free,
        disk=str(folder),
        cores=count_cores(),
        packages=_read_packages(),
        requirements=_read_requirements(),
        opencv=tuple(sorted(set(metadata.packages_distributions().get("cv2", [])))),
        environment=_read_switches(),
    )


def _read_torch() -> tuple[Torch | None, str, tuple[Gpu, ...]]:
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name == "torch":
            return None, "", ()
        return None, f"{type(error).__name__}: {error}", ()
    except Exception as error:
        # A build for another system ends in whatever its loader raises.
        return None, f"{type(error).__name__}: {one_line(error):.200}", ()
    sees = torch.cuda.is_available()
    built_for = tuple(torch.cuda.get_arch_list()) if sees else ()
    # Late: it imports PyTorch.
    from zoo.machine.devices import choose_precision

    found = Torch(
        *(str(torch.__version__), torch.version.cuda, built_for, sees, torch.get_num_threads()),
        choose_precision(torch.device("cpu")),
    )
    return found, "", tuple(_gpu(torch, i) for i in range(torch.cuda.device_count() if sees else 0))


def _gpu(torch: Any, number: int) -> Gpu:
    about = torch.cuda.get_device_properties(number)
    try:
        # Asking makes a context, which a GPU that the build lacks, or that is full, refuses.
        free = int(torch.cuda.mem_get_info(number)[0])
    except RuntimeError:
        free = None
    return Gpu(about.name, (about.major, about.minor), int(about.total_memory), free)


def list_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs as their driver lists them, without PyTorch; none where it is silent."""
    query = "--query-gpu=name,compute_cap,memory.total,memory.free"
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return tuple(_parse(line) for line in done.stdout.splitlines() if line.strip())
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()


def _parse(line: str) -> Gpu:
    name, capability, total, free = (part.strip() for part in line.rsplit(",", 3))
    major, minor = capability.split(".")
    return Gpu(name, (int(major), int(minor)), int(total) * 2**20, int(free) * 2**20)


def read_ram() -> int | None:
    """Return the bytes of memory of this computer, or of its container; None if nobody tells."""
    sizes = []
    # A container may have less than the computer: control groups, version 2, then 1.
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            sizes.append(int(Path(path).read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
    with suppress(ValueError, OSError, AttributeError):
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(sizes, default=None)


def read_free_ram() -> int | None:
    """Return the bytes of memory that nobody uses; None where nobody tells."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(found.split()[1]) * 1024
    except (OSError, StopIteration, ValueError):
        return None


def count_cores() -> int:
    """Return how many processor cores this process may use, a container's share included."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return min(cores, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores


def normalise(name: str) -> str:
    """Return a distribution's name as indexes compare it.

    >>> normalise("Segmentation_Models.Pytorch")
    'segmentation-models-pytorch'
    """
    return name.lower().replace("_", "-").replace(".", "-")


def _read_packages() -> dict[str, Package]:
    found = {}
    for distribution in metadata.distributions():
        about = distribution.metadata
        # A folder that an interrupted pip left behind has no name.
        if about is None or not about["Name"]:
            continue
        name = normalise(about["Name"])
        found[name] = Package(name, distribution.version, _licence(about))
    return found


def _licence(about: Any) -> str:
    prefix = "License :: "
    classes = [c for c in about.get_all("Classifier") or [] if c.startswith(prefix)]
    short = [c.rsplit(" :: ", 1)[-1] for c in classes]
    # Some put the whole text where a name belongs.
    first = next(iter((about.get("License") or "").strip().splitlines()), "")
    return about.get("License-Expression") or "; ".join(short) or first or "not stated"


def _read_requirements() -> dict[str, tuple[str, ...]]:
    from packaging.requirements import Requirement

    try:
        listed = [Requirement(text) for text in metadata.requires("maskzoo") or []]
        extras = metadata.metadata("maskzoo").get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return {}
    found: dict[str, list[str]] = {"": []}
    for extra in ("", *extras):
        for wanted in listed:
            # Core requirements hold for every extra, too; they are told once.
            if wanted.marker is None:
                applies = extra == ""
            else:
                applies = wanted.marker.evaluate({"extra": extra})
            if applies and normalise(wanted.name) != "maskzoo":
                found.setdefault(extra, []).append(f"{wanted.name}{wanted.specifier}")
    return {extra: tuple(texts) for extra, texts in found.items()}


def _read_switches() -> dict[str, str]:
    found = {}
    for name in SWITCHES:
        value = os.environ.get(name)
        if value is not None:
            found[name] = "set" if name.endswith(("_KEY", "_URI")) else value
    return found
