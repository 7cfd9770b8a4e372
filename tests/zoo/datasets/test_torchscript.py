"""TorchScript that may only compute: what is refused, and that nothing of it has run."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo.datasets.torchscript import load_torchscript


def script(network: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings(action="ignore"):
        torch.jit.script(network.eval()).save(str(path))
    return path


def edited(path: Path, change: Callable[[str], str]) -> Path:
    """Change an archive's code, which torch.jit.save would clear of what has no effect."""
    target = path.with_name("edited.ts")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as out:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith(".py"):
                content = change(content.decode()).encode()
            out.writestr(name, content)
    return target


class Twice(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, scale_factor=2.0)


class Inner(nn.Module):
    """A part that touches a file where another method than `forward` is called."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    @torch.jit.export
    def other(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file("touched", True, 64, dtype=torch.uint8).sum()


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


class InBranch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i in range(2):
            if x.shape[0] > 100 + i:
                x = x + torch.from_file("touched", True, 64, dtype=torch.uint8).sum()
        return x


def _touch(x: torch.Tensor) -> torch.Tensor:
    return x + torch.from_file("touched", True, 64, dtype=torch.uint8).sum()


class ByFunction(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _touch(x)


class InParallel(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.jit.wait(torch.jit.fork(_touch, x))


class Prints(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        print("text")
        return x


BAD = {
    "another method of a part": (Outer, "'aten::from_file'"),
    "a branch in a loop": (InBranch, "'aten::from_file'"),
    "a function": (ByFunction, "'aten::from_file'"),
    "a thread": (InParallel, "'aten::wait'|'prim::fork'"),
    "text on the screen": (Prints, "'prim::Print'"),
}


@pytest.mark.parametrize("case", BAD)
def test_operations_that_do_more_than_compute_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    build, named = BAD[case]
    monkeypatch.chdir(tmp_path)
    path = script(build(), tmp_path / "model.ts")
    with pytest.raises(ValueError, match=rf"model\.ts: .* only compute, found ({named})"):
        load_torchscript(path, torch)
    assert not (tmp_path / "touched").exists()


UNSEEN = {
    "__setstate__": "  def __setstate__(self, state: int) -> NoneType:\n    return None\n",
    "a hook": '  __forward_hooks__ = ["forward", ]\n',
    "a class in C++": "  a : __torch__.torch.classes.quantized.Conv2dPackedParamsBase\n",
}


@pytest.mark.parametrize("what", UNSEEN)
def test_what_runs_unseen_is_refused_before_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    path = script(Twice(), tmp_path / "model.ts")
    bad = edited(path, lambda text: text.replace("  training : bool\n", UNSEEN[what], 1))
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(ValueError, match=f"found {re.escape(what)}, which is run unseen"):
        load_torchscript(bad, torch)


class Network(nn.Module):
    """What networks that enlarge consist of."""

    def __init__(self) -> None:
        super().__init__()
        parts = [nn.Conv2d(1, 8, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(8)]
        parts += [nn.PReLU(), nn.GroupNorm(2, 8), nn.GELU(), nn.Dropout(0.1)]
        self.body = nn.Sequential(*parts, nn.LeakyReLU(0.2, inplace=True))
        self.norm, self.attend = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.tail = nn.Sequential(nn.Conv2d(8, 4, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, w = x.shape[-2:]
        found = self.body(F.pad(x, (0, (8 - w % 8) % 8, 0, (8 - h % 8) % 8), mode="reflect"))
        tokens = self.norm(found.flatten(2).transpose(1, 2))
        tokens = tokens + self.attend(tokens, tokens, tokens)[0]
        found = found + torch.roll(tokens.transpose(1, 2).reshape(found.shape), (1, 1), (2, 3))
        large = F.interpolate(x, scale_factor=2.0, mode="bicubic", align_corners=False)
        return (self.tail(found)[..., : 2 * h, : 2 * w] + large).clamp(0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["script", "trace"])
def test_networks_that_enlarge_are_loaded_as_they_are(tmp_path: Path, way: str) -> None:
    network, x = Network().eval(), torch.rand(1, 1, 16, 24)
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        made = torch.jit.script(network) if way == "script" else torch.jit.trace(network, x)
        made.save(str(tmp_path / "model.ts"))
        found = load_torchscript(tmp_path / "model.ts", torch)(x)
    torch.testing.assert_close(found, network(x))


def test_entries_that_come_twice_are_refused(tmp_path: Path) -> None:
    path = script(Twice(), tmp_path / "model.ts")
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr(archive.namelist()[0], b"another")
    with pytest.raises(ValueError, match="expected TorchScript, found"):
        load_torchscript(path, torch)
