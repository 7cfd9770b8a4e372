"""What the tests of these networks share: discs to learn, and counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from zoo.families.activation_checkpointing import checkpoint_blocks, find_blocks
from zoo.families.nets.network import load_network

SIDE = 64


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def build() -> Callable[..., Any]:
    """A network with random weights, of grey images; two classes, one output."""

    def make(name: str, encoder: Any = None, **changes: Any) -> Any:
        torch.manual_seed(0)
        given = {"channels": 1, "classes": 2, "outputs": 1, "encoder": encoder}
        return load_network(name).build(**given | changes)

    return make


def _discs(seed: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images, float (N, 1, h, w), of a bright and a dark disc, and their masks."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    centres = torch.randint(14, SIDE - 14, (count, 2, 2), generator=generator)
    radii = torch.randint(7, 13, (count, 2), generator=generator)
    y, x = (centres[..., axis, None, None] for axis in (0, 1))
    masks = ((rows - y) ** 2 + (columns - x) ** 2 <= radii[..., None, None] ** 2).float()
    noise = 0.2 * torch.randn(count, 1, SIDE, SIDE, generator=generator)
    images = 1.5 * masks[:, :1] - 1.5 * masks[:, 1:] * (1 - masks[:, :1]) + noise
    return images, torch.stack((masks[:, 0], masks[:, 1] * (1 - masks[:, 0])), 1)


@pytest.fixture
def learn() -> Callable[..., float]:
    """The Dice of a network on discs that it has not seen, after some steps on others."""

    def run(network: Any, objective: Any, steps: int, lr: float = 3e-3) -> float:
        images, masks = _discs(0, 32)
        optimizer = torch.optim.AdamW(network.parameters(), lr=lr)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.2)
        network.train()
        for step in range(steps):
            part = slice(step % 8 * 4, step % 8 * 4 + 4)
            optimizer.zero_grad()
            objective(network(images[part]), masks[part]).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        images, masks = _discs(1, 8)
        with torch.no_grad():
            logits = network.eval()(images)
        size = {"size": (SIDE, SIDE), "mode": "bilinear"}
        found = (torch.nn.functional.interpolate(logits, **size) > 0).float()
        return float(2 * (found * masks).sum() / (found.sum() + masks.sum()))

    return run


@pytest.fixture
def same_with_checkpointing() -> Callable[..., None]:
    """Holds gradients and what norms remember against those without checkpointing."""

    def check(make: Callable[[], Any], objective: Any) -> None:
        images, masks = _discs(2, 2)
        found = []
        for saves_memory in (False, True):
            network = make().train()
            if saves_memory:
                blocks = list(find_blocks(network))
                assert len(blocks) >= 4
                checkpoint_blocks(blocks)
            torch.manual_seed(1)
            objective(network(images), masks).backward()
            gradients = {k: p.grad for k, p in network.named_parameters() if p.grad is not None}
            found.append(gradients | dict(network.named_buffers()))
        plain, saving = found
        assert plain.keys() == saving.keys()
        assert all(torch.equal(plain[key], saving[key]) for key in plain)

    return check


@pytest.fixture
def millions() -> Callable[[Any], float]:
    """Weights that learn, in millions."""
    return lambda network: sum(p.numel() for p in network.parameters()) / 1e6
