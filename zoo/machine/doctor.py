"""What of this computer and its libraries will not work, be slow, or oblige whoever uses it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from zoo.machine.facts import Facts, Gpu, normalise

Level = Literal["ok", "warn", "fail"]
GB = 1e9
# Of memory and disk, below which a finding warns or fails.
LITTLE_RAM, LITTLE_DISK, NO_DISK = 8 * GB, 20 * GB, 1 * GB
LITTLE_GPU = 8 * GB
# Of /dev/shm; containers have 64 MB unless they are told otherwise.
LITTLE_SHARED = 1 * GB
OLDEST_PYTHON = (3, 11)

_AGPL = re.compile(r"AGPL|Affero", re.IGNORECASE)
_NOT_COMMERCIAL = re.compile(r"non-?\s?commercial|\bCC[- ]BY[- ]NC", re.IGNORECASE)


@dataclass(frozen=True)
class Advice:
    """One line of the diagnosis.

    Attributes:
        level: `ok`, `warn`, or `fail`: something will not run.
        topic: in a word.
        text: what was found.
        remedy: what to change; "" where there is nothing to.
    """

    level: Level
    topic: str
    text: str
    remedy: str = ""


def diagnose(facts: Facts) -> list[Advice]:
    """Judge what was found about a computer."""
    judges: Sequence[Callable[[Facts], Iterator[Advice]]] = (
        _python,
        _torch,
        _gpus,
        _memory,
        _disk,
        _threads,
        _versions,
        _opencv,
        _licences,
        _network,
    )
    return [advice for judge in judges for advice in judge(facts)]


def has_failed(advices: Sequence[Advice]) -> bool:
    """Tell whether something will not run."""
    return any(advice.level == "fail" for advice in advices)


def describe(advices: Sequence[Advice]) -> str:
    """Return pieces of advice as lines of text, each with what to change below it."""
    width = max(len(advice.topic) for advice in advices)
    lines = []
    for advice in advices:
        lines.append(f"{advice.level:<4}  {advice.topic:<{width}}  {advice.text}")
        if advice.remedy:
            lines.append(f"{'':<4}  {'':<{width}}  -> {advice.remedy}")
    return "\n".join(lines)


def to_json(facts: Facts, advices: Sequence[Advice]) -> str:
    """Return the advice, and the facts that it is drawn from, as JSON."""
    record: dict[str, Any] = {
        "failed": has_failed(advices),
        "findings": [asdict(advice) for advice in advices],
        "facts": asdict(facts),
    }
    return json.dumps(record, indent=1, ensure_ascii=False)


# --- what computes


def _python(facts: Facts) -> Iterator[Advice]:
    found = tuple(int(part) for part in facts.python.split(".")[:2])
    if found < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        yield Advice("fail", "python", facts.python, f"install Python {wanted} or newer")
    else:
        yield Advice("ok", "python", facts.python)


def _torch(facts: Facts) -> Iterator[Advice]:
    if facts.torch_error:
        yield Advice(
            "fail",
            "torch",
            f"is installed and cannot be imported: {facts.torch_error}",
            "install it anew, for this system and this Python: https://pytorch.org/get-started",
        )
    elif facts.torch is None:
        yield Advice(
            "warn",
            "torch",
            "is not installed: convert, fuse, evaluate and check work, train and predict do not",
            "pip install 'maskzoo[train]'",
        )
    else:
        cuda = f"for CUDA {facts.torch.cuda}" if facts.torch.cuda else "without CUDA"
        yield Advice("ok", "torch", f"{facts.torch.version}, {cuda}")


def _gpus(facts: Facts) -> Iterator[Advice]:
    if not facts.gpus:
        text = "none found; networks are trained on the CPU, small ones only"
        yield Advice("ok" if facts.torch is None else "warn", "gpu", text)
    for number, gpu in enumerate(facts.gpus):
        yield _judge_gpu(facts, f"gpu {number}", gpu)


def _judge_gpu(facts: Facts, topic: str, gpu: Gpu) -> Advice:
    name = f"{gpu.name}, sm_{gpu.capability[0]}{gpu.capability[1]}, {_size(gpu.total)}"
    if facts.torch is None:
        return Advice("ok", topic, name)
    # Late: it imports PyTorch.
    from zoo.machine.devices import BFLOAT16_FROM, FLOAT16_FROM, runs_on

    if not facts.torch.sees_gpus:
        if facts.torch.cuda is None:
            remedy = f"install a CUDA build of PyTorch: {_build_for(gpu.capability)}"
            return Advice("fail", topic, f"{name}; PyTorch is built without CUDA", remedy)
        remedy = f"install a driver for CUDA {facts.torch.cuda} or newer, or an older PyTorch"
        return Advice("fail", topic, f"{name}; PyTorch does not find it", remedy)
    if not runs_on(gpu.capability, list(facts.torch.built_for)):
        built = ", ".join(facts.torch.built_for)
        text = f"{name}; PyTorch {facts.torch.version} is built for {built}"
        return Advice("fail", topic, text, f"install {_build_for(gpu.capability)}")
    if gpu.capability >= BFLOAT16_FROM:
        kind = "trains in bf16-mixed"
    elif gpu.capability >= FLOAT16_FROM:
        kind = "trains in 16-mixed (bfloat16 would be emulated)"
    else:
        kind = "trains in 32-true (no fast float16)"
    text = f"{name}; {kind}"
    if gpu.free is not None and gpu.free < 0.8 * gpu.total:
        rest = f"{text}; {_size(gpu.free)} are free"
        return Advice("warn", topic, rest, "see with nvidia-smi who else uses it")
    if gpu.total < LITTLE_GPU:
        return Advice("warn", topic, text, "lower size or batch, and raise accumulate instead")
    return Advice("ok", topic, text)


def _build_for(capability: tuple[int, int]) -> str:
    if capability < (7, 5):
        return (
            "PyTorch 2.14 or older for CUDA 12.6: "
            "pip install 'torch<2.15' --index-url https://download.pytorch.org/whl/cu126"
        )
    return "one that names it among its builds: https://pytorch.org/get-started"


def _memory(facts: Facts) -> Iterator[Advice]:
    if facts.ram is not None:
        free = "" if facts.ram_free is None else f", {_size(min(facts.ram_free, facts.ram))} free"
        is_little = facts.ram < LITTLE_RAM
        remedy = "set cache: none, and fewer workers" if is_little else ""
        text = f"{_size(facts.ram)}{free}"
        yield Advice("warn" if is_little else "ok", "memory", text, remedy)
    if facts.shared is not None and facts.shared < LITTLE_SHARED:
        yield Advice(
            "warn",
            "memory",
            f"/dev/shm has {_size(facts.shared)}, through which workers hand over batches",
            "start the container with --shm-size=8g, or set workers=0",
        )


def _disk(facts: Facts) -> Iterator[Advice]:
    text = f"{_size(facts.disk_free)} free at {facts.disk}"
    if facts.disk_free < NO_DISK:
        yield Advice("fail", "disk", text, "make room: a run needs about 1 GB")
    elif facts.disk_free < LITTLE_DISK:
        yield Advice("warn", "disk", text, "make room: five folds of a large network need 20 GB")
    else:
        yield Advice("ok", "disk", text)


def _threads(facts: Facts) -> Iterator[Advice]:
    cores = f"{facts.cores} core{'s' if facts.cores > 1 else ''}"
    if facts.torch is None:
        yield Advice("ok", "cpu", cores)
    elif facts.torch.threads > facts.cores:
        text = f"{cores}, but PyTorch computes with {facts.torch.threads} threads"
        yield Advice("warn", "cpu", text, f"export OMP_NUM_THREADS={facts.cores}")
    else:
        text = f"{cores}, {facts.torch.threads} threads; trains in {facts.torch.precision}"
        yield Advice("ok", "cpu", text)


# --- what is installed


def _versions(facts: Facts) -> Iterator[Advice]:
    if not facts.requirements:
        yield Advice("warn", "libraries", "maskzoo is not installed", "pip install maskzoo")
        return
    for extra, texts in facts.requirements.items():
        topic = f"extra {extra}" if extra else "libraries"
        missing, wrong = _compare(facts, texts)
        there = len(texts) - len(missing)
        install = f"pip install 'maskzoo[{extra}]'" if extra else "pip install maskzoo"
        if wrong:
            level: Level = "warn" if extra else "fail"
            yield Advice(level, topic, f"expected {', '.join(wrong)}", f"{install} --upgrade")
        if missing and not extra:
            yield Advice("fail", topic, f"missing: {', '.join(missing)}", install)
        elif missing:
            # What nobody asked for is no fault, half of it is.
            part = f"{there} of {len(texts)} installed; missing: {', '.join(missing)}"
            yield Advice("ok", topic, part if there else "not installed", f"for it: {install}")
        elif not wrong:
            yield Advice("ok", topic, f"{there} installed, as expected")


def _compare(facts: Facts, texts: Sequence[str]) -> tuple[list[str], list[str]]:
    from packaging.requirements import Requirement

    missing, wrong = [], []
    for text in texts:
        wanted = Requirement(text)
        found = facts.packages.get(normalise(wanted.name))
        if found is None:
            missing.append(wanted.name)
        elif not wanted.specifier.contains(found.version, prereleases=True):
            wrong.append(f"{text}, found {found.version}")
    return missing, wrong


def _opencv(facts: Facts) -> Iterator[Advice]:
    if len(facts.opencv) > 1:
        kept = next((name for name in facts.opencv if "headless" in name), facts.opencv[0])
        rest = " ".join(facts.opencv)
        yield Advice(
            "warn",
            "opencv",
            f"{len(facts.opencv)} packages bring cv2, and write over each other's files: {rest}",
            f"pip uninstall -y {rest} && pip install {kept}",
        )


def _licences(facts: Facts) -> Iterator[Advice]:
    for pattern, text, remedy in (
        (
            _AGPL,
            "AGPL-3.0, which asks for the source of what is built with them, also as a service",
            "do without them (extra yolo), or see 'Licences' in the README",
        ),
        (_NOT_COMMERCIAL, "not for commercial use", "do without them, or use them for research"),
    ):
        found = [p for p in facts.packages.values() if pattern.search(p.licence)]
        if found:
            named = ", ".join(sorted(f"{package.name} {package.version}" for package in found))
            yield Advice("warn", "licences", f"{named}: {text}", remedy)
    if facts.packages:
        count = len(facts.packages)
        yield Advice("ok", "licences", f"of {count} packages, as they state it; --json lists them")


def _network(facts: Facts) -> Iterator[Advice]:
    known = facts.environment
    given = ", ".join(f"{name}={value}" for name, value in known.items())
    text = f"set are {given}" if given else "no switch is set"
    if known.get("WANDB_MODE") == "online":
        yield Advice(
            "warn",
            "network",
            f"{text}; WANDB_MODE=online speaks for whatever else uses W&B",
            "unset WANDB_MODE: a run's config says by track.wandb.mode what is sent",
        )
        return
    offline = {"1", "true", "yes", "on"} & {known.get("HF_HUB_OFFLINE", "").lower()}
    weights = "are not fetched" if offline else "are fetched where a config names them"
    yield Advice("ok", "network", f"{text}; pretrained weights {weights}")


def _size(size: float) -> str:
    return f"{size / GB:.1f} GB" if size < 100 * GB else f"{size / GB:.0f} GB"
