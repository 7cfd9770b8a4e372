"""A network that is shown metadata beside images, or predicts them, or both.

How they reach it. A row of numbers goes with an image all the way: `TrainingSet` gives it as the
third part of a sample, `NetworkInput.metadata` holds it for scores and prediction, and a network
takes a batch of them as a second argument, (N, k). So windows, forms of test-time augmentation and
processes each have the rows of their own images. Where a run has no metadata there is no third
part, no second argument, and nothing of this.

What is done with it lies around the network, in `MetadataNetwork`: a forward hook on the network's
`encoder` reads and changes the deepest feature map. Every semantic network of ours has a module of
that name, for the optimizer's `encoder_lr`; what it gives is a list, a mapping or an output of
transformers, in which the deepest map is found (`find_deepest`). So no network knows of metadata.
Those whose encoder gives tokens, or is run stage by stage, are refused before anything is computed.
The hook is set for one pass and taken away after it: a copy of the network, such as an average of
weights, has its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from zoo.metadata.columns import Columns
from zoo.metadata.config import MetadataConfig

Place = tuple[Any, ...]
# Of what an encoder gives by names: torchvision's, and transformers' of backbones and of MiT.
_NAMES = ("out", "feature_maps", "hidden_states")


class Learned(NamedTuple):
    """What a network gives while it learns a task beside the masks.

    Attributes:
        outputs: what it gives of the masks.
        loss: of the task, a scalar, by its weight.
    """

    outputs: Any
    loss: torch.Tensor


class Film(nn.Module):
    """A scale and a shift of each channel, made of what is known of the image.

    Perez et al. 2018, "FiLM: Visual Reasoning with a General Conditioning Layer", arXiv:1709.07871,
    equations 1 and 2; as there, what is computed is how far the scale is from 1. The last layer
    starts at zero, so that untrained it changes nothing.
    """

    def __init__(self, given: int, channels: int, width: int) -> None:
        """Build it of the row's length, the features' channels, and the hidden layer's width."""
        super().__init__()
        last = nn.Linear(width, 2 * channels)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(nn.Linear(given, width), nn.ReLU(), last)

    def forward(self, features: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return features (N, C, h, w), changed by rows (N, k)."""
        scale, shift = self.layers(rows).to(features.dtype)[..., None, None].chunk(2, 1)
        changed: torch.Tensor = features * (1 + scale) + shift
        return changed


class MetadataNetwork(nn.Module):
    """A network with what takes metadata in or predicts them.

    Attributes:
        plain: the network itself.
        columns: what is known of an image.
        tally: takes down in evaluation mode how well columns are predicted, float64 (columns, 2):
            sums of errors or hits, and of how many images; None: nobody asks.
    """

    missing: torch.Tensor
    owners: torch.Tensor

    def __init__(
        self, plain: nn.Module, columns: Columns, config: MetadataConfig, channels: int
    ) -> None:
        """Put it around a network whose deepest features have so many channels."""
        super().__init__()
        self.plain, self.columns = plain, columns
        self.tally: torch.Tensor | None = None
        self._weight, self._dropout = config.weight, config.dropout
        # The network's own random weights are drawn already: they are as without.
        self.film = Film(len(columns.missing), channels, config.width) if config.is_input else None
        outputs = sum(column.width for column in columns.columns)
        self.head = nn.Linear(channels, outputs) if config.is_task else None
        # Not persistent: they are the columns'.
        self.register_buffer("missing", torch.from_numpy(columns.missing), persistent=False)
        numbers = [i for i, width in enumerate(columns.widths) for _ in range(width)]
        self.register_buffer("owners", torch.tensor(numbers), persistent=False)

    @property
    def encoder(self) -> nn.Module:
        """The network's encoder."""
        encoder: nn.Module = self.plain.encoder
        return encoder

    @property
    def score_names(self) -> list[str]:
        """What the task is scored by, a name a column; none where there is no task."""
        return [] if self.head is None else [c.score_name for c in self.columns.columns]

    def forward(self, images: torch.Tensor, rows: torch.Tensor | None = None) -> Any:
        """Return what the network gives of images, float (N, c, h, w); `Learned` with a task.

        Args:
            images: normalised.
            rows: what is known of them, float (N, k); None: nothing.
        """
        if rows is None:
            rows = self.missing.expand(len(images), -1)
        shown = self._drop(rows) if self.training else rows
        found: list[torch.Tensor] = []
        hook = self.encoder.register_forward_hook(partial(self._change, shown, found))
        try:
            outputs = self.plain(images)
        finally:
            hook.remove()
        if self.head is None:
            return outputs
        if self.training:
            return Learned(outputs, self._weight * self._loss(found[0], rows))
        if self.tally is not None:
            self._count(self.tally, found[0], rows)
        return outputs

    def _change(
        self,
        rows: torch.Tensor,
        found: list[torch.Tensor],
        _encoder: nn.Module,
        _given: Any,
        output: Any,
    ) -> Any:
        """Predict columns of the deepest features and change these; a hook of the encoder.

        In this order: what a network is shown it would have nothing to learn from.
        """
        place = find_deepest(output)
        if place is None:
            raise TypeError("expected a feature map of the encoder")
        features = take(output, place)
        if self.head is not None:
            with torch.autocast(features.device.type, enabled=False):
                found.append(self.head(features.float().mean((-2, -1))))
        return output if self.film is None else put(output, place, self.film(features, rows))

    def _drop(self, rows: torch.Tensor) -> torch.Tensor:
        """Show columns as missing: each by chance, and by as much all of an image's."""
        if not self._dropout or self.film is None:
            return rows
        size = len(rows), len(self.columns.columns) + 1
        drawn = torch.rand(size, device=rows.device) < self._dropout
        gone = (drawn[:, :-1] | drawn[:, -1:])[:, self.owners]
        return torch.where(gone, self.missing, rows)

    def _parts(
        self, predicted: torch.Tensor, rows: torch.Tensor
    ) -> Iterator[tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Yield each column's number, what is predicted and true, (N, width), and known, (N,)."""
        widths = [column.width for column in self.columns.columns]
        true = rows.float().split([w + 1 for w in widths], 1)
        pairs = zip(predicted.split(widths, 1), true, strict=True)
        for number, (guess, truth) in enumerate(pairs):
            yield number, guess, truth[:, :-1], 1 - truth[:, -1]

    def _loss(self, predicted: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return the mean over columns of their losses, each over the images that have a value.

        Of numbers it is the smooth L1 distance (Girshick 2015, "Fast R-CNN", equation 3) of the
        standardised values, of categories the cross-entropy.
        """
        losses = []
        for number, guess, true, known in self._parts(predicted, rows):
            if self.columns.columns[number].categories:
                each = F.cross_entropy(guess, true.argmax(1), reduction="none")
            else:
                each = F.smooth_l1_loss(guess, true, reduction="none")[:, 0]
            losses.append((each * known).sum() / known.sum().clamp_min(1))
        return torch.stack(losses).mean()

    def _count(self, tally: torch.Tensor, predicted: torch.Tensor, rows: torch.Tensor) -> None:
        for number, guess, true, known in self._parts(predicted, rows):
            column = self.columns.columns[number]
            if column.categories:
                each = (guess.argmax(1) == true.argmax(1)).double()
            else:
                each = (guess - true)[:, 0].abs().double() * column.deviation
            tally[number] += torch.stack(((each * known).sum(), known.double().sum()))


@contextmanager
def tallied(network: nn.Module) -> Iterator[torch.Tensor]:
    """Take down how well a network predicts columns within the block, see `MetadataNetwork.tally`.

    Of what a network sees in windows, each window counts by itself. Of networks without such a task
    there are no columns, (0, 2).
    """
    if not isinstance(network, MetadataNetwork) or network.head is None:
        yield torch.zeros((0, 2), dtype=torch.float64)
        return
    size = len(network.columns.columns), 2
    network.tally = torch.zeros(size, dtype=torch.float64, device=network.missing.device)
    try:
        yield network.tally
    finally:
        network.tally = None


def score_names(network: nn.Module) -> list[str]:
    """Return what a network's task of metadata is scored by; none of networks without."""
    return network.score_names if isinstance(network, MetadataNetwork) else []


def plain_of(network: nn.Module) -> nn.Module:
    """Return a network without what takes metadata in."""
    return network.plain if isinstance(network, MetadataNetwork) else network


def without_task(network: nn.Module) -> nn.Module:
    """Return a network, in evaluation mode, without what predicts metadata, as others are.

    What is only there to predict them is left out altogether: the network is shown images alone.
    """
    if not isinstance(network, MetadataNetwork) or network.head is None:
        return network
    if network.film is None:
        return network.plain
    network.head = None
    return network


def add_metadata(
    plain: nn.Module, columns: Columns, config: MetadataConfig, shape: Sequence[int]
) -> MetadataNetwork:
    """Return a network with what takes metadata in or predicts them.

    Args:
        plain: the network, on the CPU.
        columns: what is known of an image.
        config: what is done with it.
        shape: of a batch that the network takes, (N, c, h, w).

    Raises:
        ValueError: the network's encoder gives no feature map.
    """
    return MetadataNetwork(plain, columns, config, count_channels(plain, shape))


# --- the deepest feature map


class _Reached(Exception):  # noqa: N818 (no error: the rest of the network is not of interest)
    def __init__(self, channels: int) -> None:
        self.channels = channels


def count_channels(network: nn.Module, shape: Sequence[int]) -> int:
    """Return how many channels the deepest features have that a network's encoder gives.

    The network sees an image that is pretended: nothing is computed.

    Raises:
        ValueError: it gives no feature map, or is not run as a whole.
    """

    def stop(_encoder: nn.Module, _given: Any, output: Any) -> None:
        place = find_deepest(output)
        if place is not None:
            raise _Reached(int(take(output, place).shape[1]))

    encoder: Any = getattr(network, "encoder", None)
    was_training, channels = network.training, 0
    if isinstance(encoder, nn.Module):
        hook = encoder.register_forward_hook(stop)
        try:
            with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
                network.eval()(torch.empty(tuple(shape)))
        except _Reached as reached:
            channels = reached.channels
        finally:
            hook.remove()
            network.train(was_training)
    if not channels:
        raise ValueError(
            "metadata: expected a network whose encoder gives a feature map, found one "
            f"({type(network).__name__}) whose encoder gives tokens or is run stage by stage; "
            "choose another network, or remove metadata"
        )
    return channels


def find_deepest(output: Any) -> Place | None:
    """Return where the deepest feature map, (N, C, h, w), is in what an encoder gives.

    The place is made of keys and indices, one within the other; None: there is no such map.

    >>> maps = [torch.zeros(1, 4, 8, 8), torch.zeros(1, 9, 2, 2)]
    >>> find_deepest((maps, [None])), find_deepest({"out": maps[1], "aux": maps[0]})
    ((0, 1), ('out',))
    """
    if isinstance(output, torch.Tensor):
        return () if output.ndim == 4 else None
    keys: Sequence[Any] = ()
    if isinstance(output, Mapping):
        keys = [name for name in _NAMES if name in output]
    elif isinstance(output, list | tuple):
        keys = range(len(output))[::-1]
    for key in keys:
        inner = find_deepest(output[key])
        if inner is not None:
            return (key, *inner)
    return None


def take(output: Any, place: Place) -> torch.Tensor:
    """Return what lies at a place that `find_deepest` names."""
    for key in place:
        output = output[key]
    found: torch.Tensor = output
    return found


def put(output: Any, place: Place, features: torch.Tensor) -> Any:
    """Return what an encoder gives with other features at a place; mappings are changed."""
    if not place:
        return features
    key, *rest = place
    inner = put(output[key], tuple(rest), features)
    if isinstance(output, Mapping):
        changed: Any = output
        changed[key] = inner
        return changed
    kept = list(output)
    kept[key] = inner
    return kept if isinstance(output, list) else tuple(kept)
