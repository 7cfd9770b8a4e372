"""Encoders of segmentation-models-pytorch and timm: which sizes they take, and their weights."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import segmentation_models_pytorch as smp
import timm
import torch
from torch import nn

from converters.errors import one_line
from zoo.families.downloads import from_smp, quiet_hub
from zoo.families.semantic import reads_colours
from zoo.families.vit_pyramid import VitPyramid, is_plain_vit
from zoo.run_files import checkpoints
from zoo.run_files.licences import WeightSource, of_file, of_smp

TIMM = "tu-"
# What an encoder's weights have beyond it, as they come from classification.
_CLASSIFIERS = ("fc.", "classifier.", "last_linear.", "_fc.")
# They divide each of their resolutions into windows of a fixed side, without padding.
_WINDOWED = ("maxvit", "maxxvit", "coatnet")
_OURS = re.compile(r"(?:^|\.)model\.")
_WRAPPED = re.compile(r"^(?:model\.)+")
_FIRST_NUMBER = re.compile(r"^(\w+)\.(\d+)(?=\.)")
_MISSING = re.compile(r"^Missing keys \((.*)\) discovered")


class Make(Protocol):
    """Makes an encoder, or a network that has one."""

    def __call__(self, weights: str | bool | None, channels: int, /, **further: Any) -> Any:
        """Make it.

        Args:
            weights: name of the encoder's weights; True for timm's; None for random ones.
            channels: of the images.
            further: of timm's encoders.
        """


def check_encoder(
    encoder: str, options: dict[str, Any], size_hw: tuple[int, int], key: str
) -> None:
    """Make sure that an encoder takes its options, and inputs of a size.

    Args:
        encoder: such as `resnet34`, `tu-maxvit_tiny_tf_512`.
        options: what timm's encoder takes, such as `img_size`.
        size_hw: of what it is shown, in pixels.
        key: of the config, which says so.

    Raises:
        ValueError: it does not.
    """
    if options and not encoder.startswith(TIMM):
        raise ValueError(
            f"encoder_options: expected none for '{encoder}'; only timm's encoders, "
            "whose names begin with tu-, take any"
        )
    side = _native_side(encoder, options)
    if side is None:
        return
    if any(kind in encoder for kind in _WINDOWED):
        if any(length % side for length in size_hw):
            sizes = ", ".join(str(side * n) for n in range(1, 5))
            raise ValueError(
                f"{key}: {encoder} attends in windows that fit multiples of {side}: "
                f"expected height and width of {sizes}, ..., found {list(size_hw)}; or set "
                "encoder_options.img_size"
            )
    elif size_hw != (side, side):
        raise ValueError(
            f"{key}: {encoder} takes [{side}, {side}] alone, found {list(size_hw)}; or "
            "set one of encoder_options.img_size, strict_img_size=false (Swin), "
            "dynamic_img_size=true (ViT)"
        )


def _native_side(encoder: str, options: dict[str, Any]) -> int | None:
    """Return the side in pixels that timm's encoder is bound to; None where it takes any."""
    name = encoder.removeprefix(TIMM)
    takes_any = options.get("strict_img_size") is False or options.get("dynamic_img_size")
    if name == encoder or takes_any:
        return None
    try:
        found = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        # A tag that this version does not know.
        raise ValueError(f"encoder '{encoder}': {one_line(error)}") from None
    if found is None or not found.fixed_input_size:
        return None
    given = options.get("img_size", found.input_size[-1])
    return given if isinstance(given, int) else None


def sources_of(encoder: str, weights: str | None) -> list[WeightSource]:
    """Return whose pretrained weights an encoder starts from."""
    if weights is None:
        return []
    return [of_file(weights) if checkpoints.is_weight_file(weights) else of_smp(encoder, weights)]


def build_encoder(
    encoder: str, weights: str | None, channels: int, options: dict[str, Any]
) -> nn.Module:
    """Return an encoder of images (N, channels, h, w).

    It gives a list of six features, (N, C, h / s, w / s) at strides s of 1 (the image), 2, 4, 8,
    16 and 32; `out_channels` holds their channels. An encoder that begins at stride 4 gives one of
    no channels at stride 2. Of a plain Vision Transformer, see `VitPyramid`.

    Args:
        encoder: such as `resnet34`; `tu-...` for those of timm.
        weights: None for random ones, a name that smp knows, or a file of weights.
        channels: of the images.
        options: what else timm's encoder takes.

    Raises:
        ValueError: an unknown encoder, other options, or weights that cannot be had.
    """

    def make(given: str | bool | None, colours: int, /, **further: Any) -> nn.Module:
        name = encoder.removeprefix(TIMM)
        if name != encoder and is_plain_vit(name):
            return VitPyramid(name, bool(given), colours, {**options, **further})
        return smp.encoders.get_encoder(
            encoder, in_channels=colours, weights=given, **options, **further
        )

    return make_with_weights(make, encoder, weights, f"encoder '{encoder}'", channels)


def make_with_weights(
    make: Make, encoder: str, weights: str | None, what: str, channels: int = 1
) -> Any:
    """Return what is made, an encoder or a network that has one, with the encoder's weights.

    Pretrained kernels of the first convolution are brought to other numbers of colours, for grey
    images by their sum, which is the same as to show the image three times.

    Args:
        make: makes it.
        encoder: its name.
        weights: None for random ones, a name that smp knows, or a file of weights: ours, of
            smp-hub, or for `tu-...` of timm.
        what: is made, for messages.
        channels: of the images.

    Raises:
        ValueError: it cannot be made, or the weights cannot be had.
    """
    if weights is not None and not checkpoints.is_weight_file(weights) and Path(weights).is_file():
        endings = ", ".join(checkpoints.SUFFIXES)
        raise ValueError(
            f"encoder_weights '{weights}': expected a file whose name ends in one of {endings}"
        )
    with _explained(encoder, weights, what):
        if weights is None or not checkpoints.is_weight_file(weights):
            # timm's encoders carry the name of their weights in their own name.
            return make(
                True if weights is not None and encoder.startswith(TIMM) else weights, channels
            )
    path = Path(weights)
    found = checkpoints.read_weights(path)
    is_coloured = reads_colours(path)
    own = (
        _in_timms_names(found, encoder, path) if encoder.startswith(TIMM) and is_coloured else None
    )
    if own is not None:
        overlay: dict[str, Any] = {"state_dict": own, "hf_hub_id": None}
        with _explained(encoder, None, what), _all_taken(encoder, path) as missing:
            made = make(True, channels, pretrained_cfg_overlay=overlay)
        _check_missing(missing, made, encoder, path)
        return made
    with _explained(encoder, None, what):
        made = make(None, 3 if is_coloured else channels)
    inner = getattr(made, "encoder", made)
    own = checkpoints.strip_prefix(found, inner.state_dict(), path)
    own = {k: v for k, v in own.items() if not k.removeprefix("model.").startswith(_CLASSIFIERS)}
    checkpoints.check_alike(own, inner.state_dict(), path)
    inner.load_state_dict(own)
    if is_coloured:
        inner.set_in_channels(channels, pretrained=True)
    return made


def _in_timms_names(
    found: dict[str, torch.Tensor], encoder: str, path: Path
) -> dict[str, torch.Tensor] | None:
    """Return a file's weights by the names of timm's model: timm leaves out what it does not know.

    Files of other libraries may hold the same layers in the same order by other names. None where
    the names are those of smp's encoder, as runs of ours have them.

    Raises:
        ValueError: they are those of another network, such as a deeper one.
    """
    with torch.device("meta"):
        model = timm.create_model(encoder.removeprefix(TIMM))
    wanted, classifier = model.state_dict(), model.pretrained_cfg.get("classifier") or ()
    last = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    inside = {name for name in wanted if name.rpartition(".")[0] not in last}
    own = checkpoints.strip_prefix(found, inside, path)
    if 2 * len(wanted.keys() & own.keys()) >= len(wanted):
        # What else is left over comes after the encoder, or is a table that timm computes.
        if deeper := checkpoints.further_blocks(own, wanted):
            raise _of_another(encoder, path, f"it has no '{deeper[0]}'")
        return own
    shapes = [tuple(tensor.shape) for tensor in wanted.values()]
    if not wanted.keys() & own.keys() and shapes == [tuple(t.shape) for t in own.values()]:
        return dict(zip(wanted, own.values(), strict=True))
    if any(_OURS.search(name) for name in found):
        return None
    differ = sorted(wanted.keys() - own.keys())
    missing = f"{len(differ)} of {len(wanted)} are missing, such as '{differ[0]}'"
    raise _of_another(encoder, path, missing)


class _OtherWeightsError(ValueError):
    """A file of weights of another network; the message says all."""


def _of_another(encoder: str, path: Path, found: str) -> _OtherWeightsError:
    return _OtherWeightsError(
        f"{path}: expected the weights of timm's {encoder.removeprefix(TIMM)}, found others: "
        f"{found}"
    )


@contextmanager
def _all_taken(encoder: str, path: Path) -> Iterator[list[str]]:
    """Gather the names that timm misses in weights, which it says in its log alone.

    Raises:
        ValueError: weights of other shapes.
    """
    missing: list[str] = []

    class Gather(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if said := _MISSING.search(record.getMessage()):
                missing.extend(said[1].split(", "))

    log, handler = logging.getLogger("timm.models._builder"), Gather()
    level, propagates = log.level, log.propagate
    log.addHandler(handler)
    log.propagate = False
    log.setLevel(logging.INFO)
    try:
        yield missing
    except RuntimeError as error:
        reason = one_line(error)
        first = reason[reason.find("size mismatch") :] if "size mismatch" in reason else reason
        raise _of_another(encoder, path, f"{first:.160}") from None
    finally:
        log.removeHandler(handler)
        log.propagate = propagates
        log.setLevel(level)


def _check_missing(missing: Sequence[str], made: Any, encoder: str, path: Path) -> None:
    """Make sure that an encoder misses nothing; what timm misses may be of layers that it lacks.

    Raises:
        ValueError: it does, and would begin with random numbers there.
    """
    # timm's list of features calls `layers.0` layers_0; around its features lie one or two `model`.
    names = getattr(made, "encoder", made).state_dict()
    inner = {_WRAPPED.sub("", name) for name in names}
    lacks = [n for n in missing if {n, _FIRST_NUMBER.sub(r"\1_\2", n)} & inner]
    if lacks:
        found = f"{len(lacks)} of {len(inner)} are missing, such as '{lacks[0]}'"
        raise _of_another(encoder, path, found)


@contextmanager
def _explained(encoder: str, weights: str | None, what: str) -> Iterator[None]:
    # That a classifier's last layer is left over needs no word; what is missing is an error.
    told = logging.getLogger("timm.models._builder")
    level = told.level
    told.setLevel(logging.ERROR)
    try:
        with quiet_hub(fetches=weights is not None):
            yield
    except _OtherWeightsError:
        raise
    except Exception as error:
        reason = one_line(error)
        if weights is not None and not isinstance(error, KeyError | TypeError):
            by_hand = from_smp(encoder, weights, "encoder_weights")
            raise ValueError(
                f"encoder_weights '{weights}': could not get the weights of '{encoder}'; "
                "run once with a network connection, "
                f"{by_hand or 'give a safetensors file of the encoder'}, or "
                f"set encoder_weights=null: {type(error).__name__}: {reason:.160}"
            ) from None
        raise ValueError(
            f"{what} and these options cannot be built: {type(error).__name__}: {reason:.300}"
        ) from None
    finally:
        told.setLevel(level)
