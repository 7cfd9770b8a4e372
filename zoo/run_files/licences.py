"""Whose pretrained weights a run starts from, and under which licence they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

from converters.files.provenance import atomic_write_text

# Inside a run folder.
FILE = "licences.json"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class WeightSource:
    """Where weights come from.

    Attributes:
        source: the library's name of the weights, or a file.
        licence: SPDX identifier, or `unknown`.
        url: page that states the licence; "" for a file.
        citation: the paper, or ""; what the licence of many weights asks to name.
        is_non_commercial: whether the licence forbids commercial use; None where it is unknown.
    """

    source: str
    licence: str
    url: str = ""
    citation: str = ""
    is_non_commercial: bool | None = None


def write_licences(run: Path, sources: Sequence[WeightSource]) -> None:
    """Write `licences.json` into a run folder; a run from random weights has an empty list."""
    rows = [asdict(source) for source in sources]
    atomic_write_text(run / FILE, json.dumps(rows, indent=1, ensure_ascii=False) + "\n")


def said_licence(sources: Sequence[WeightSource], licence: str | None) -> list[WeightSource]:
    """Return sources with the licence that the user states for those where nobody else does."""
    if licence is None:
        return list(sources)
    is_non_commercial = _is_non_commercial(licence)
    return [
        replace(source, licence=licence, is_non_commercial=is_non_commercial)
        if source.licence == UNKNOWN
        else source
        for source in sources
    ]


def of_file(path: str) -> WeightSource:
    """Return the source that a file is: only its user knows its licence."""
    return WeightSource(path, UNKNOWN)


def of_timm(name: str) -> WeightSource:
    """Return the source of timm's weights; timm states a licence for most.

    Args:
        name: model with or without a tag, as `timm.create_model` takes it.
    """
    import timm

    found = timm.get_pretrained_cfg(name)
    if found is None:
        return WeightSource(f"timm {name}", UNKNOWN)
    source = found.hf_hub_id or name
    licence = found.license or UNKNOWN
    return WeightSource(
        f"timm {source}",
        licence,
        f"https://huggingface.co/{source}" if found.hf_hub_id else str(found.origin_url or ""),
        ", ".join(_listed(found.paper_ids)),
        _is_non_commercial(licence),
    )


def _listed(value: object) -> list[str]:
    return [value] if isinstance(value, str) else [str(v) for v in value or ()]  # type: ignore[attr-defined]


def _is_non_commercial(licence: str) -> bool | None:
    if licence == UNKNOWN or licence == "other":
        return None
    return "-nc" in licence.lower()


NVIDIA = "NVIDIA Source Code License for SegFormer"
_XIE = "Xie et al. 2021, SegFormer, arXiv:2105.15203"
_SMP = "https://github.com/qubvel-org/segmentation_models.pytorch/blob/main/licenses/LICENSES.md"


class _Licence(NamedTuple):
    """The licence of weights whose library names none in its settings.

    Attributes:
        start: beginning of the network's name.
        weights: name of the weights; "" is any.
        licence: as `WeightSource` has it, like the next three.
        url: the page that states it.
        citation: the paper.
        is_non_commercial: whether it forbids commercial use.
    """

    start: str
    weights: str
    licence: str
    url: str
    citation: str
    is_non_commercial: bool


_EFFICIENTNET = "https://github.com/lukemelas/EfficientNet-PyTorch"
_SEMI = "https://github.com/facebookresearch/semi-supervised-ImageNet1K-models"
_YALNIZ = "Yalniz et al. 2019, arXiv:1905.00546"
_TAN = "Tan and Le 2019, EfficientNet, arXiv:1905.11946"
_VASU = "Vasu et al. 2023, arXiv:2206.04040"
_VISION = "https://github.com/pytorch/vision"
# Encoders of segmentation-models-pytorch. The first match counts.
_ENCODERS = (
    _Licence("mit_b", "", NVIDIA, _SMP, _XIE, True),
    _Licence("efficientnet-", "", "Apache-2.0", _EFFICIENTNET, _TAN, False),
    *(
        _Licence(start, weights, "CC-BY-NC-4.0", _SEMI, _YALNIZ, True)
        for start in ("resnet", "resnext")
        for weights in ("ssl", "swsl")
    ),
    *(
        _Licence(start, "imagenet", "BSD-3-Clause", _VISION, paper, False)
        for start, paper in (
            ("resnet", "He et al. 2016, arXiv:1512.03385"),
            ("resnext50_32x4d", "Xie et al. 2017, arXiv:1611.05431"),
            ("vgg", "Simonyan and Zisserman 2015, arXiv:1409.1556"),
            ("densenet", "Huang et al. 2017, arXiv:1608.06993"),
            ("mobilenet_v2", "Sandler et al. 2018, arXiv:1801.04381"),
        )
    ),
    _Licence("mobileone", "", "Apple ML-MobileOne", _SMP, _VASU, False),
)


def of_smp(encoder: str, weights: str) -> WeightSource:
    """Return the source of an encoder's weights in segmentation-models-pytorch.

    Args:
        encoder: such as `resnet34`; `tu-...` for timm's.
        weights: such as `imagenet`; timm's encoders carry their weights' name in their own.
    """
    if encoder.startswith("tu-"):
        return of_timm(encoder.removeprefix("tu-"))
    name = f"segmentation-models-pytorch {encoder} {weights}"
    for known in _ENCODERS:
        if encoder.startswith(known.start) and known.weights in ("", weights):
            return WeightSource(
                name, known.licence, known.url, known.citation, known.is_non_commercial
            )
    return WeightSource(name, UNKNOWN, f"https://huggingface.co/smp-hub/{encoder}.{weights}")


def of_torchvision(model: str, weights: str) -> WeightSource:
    """Return the source of torchvision's weights."""
    page = "https://github.com/pytorch/vision/blob/main/LICENSE"
    return WeightSource(f"torchvision {model} {weights}", "BSD-3-Clause", page, "", False)


_CHENG = "Cheng et al. 2022, Mask2Former, arXiv:2112.01527"
_CONDE = "Conde et al. 2022, Swin2SR, arXiv:2209.11345"
_JAIN = "Jain et al. 2023, OneFormer, arXiv:2211.06220"
_KERSSIES = "Kerssies et al. 2025, EoMT, arXiv:2503.19108"
_ROBINSON = "Robinson et al. 2025, RF-DETR, arXiv:2511.09554"
# Beginning of a name on the Hugging Face hub -> licence on its page, paper, non-commercial.
_HUB: tuple[tuple[str, str, str, bool], ...] = (
    ("nvidia/segformer", NVIDIA, _XIE, True),
    ("nvidia/mit-", NVIDIA, _XIE, True),
    ("openmmlab/upernet-swin", "MIT", "Liu et al. 2021, Swin, arXiv:2103.14030", False),
    ("openmmlab/upernet-convnext", "MIT", "Liu et al. 2022, ConvNeXt, arXiv:2201.03545", False),
    ("microsoft/beit-", "Apache-2.0", "Bao et al. 2022, BEiT, arXiv:2106.08254", False),
    ("facebook/mask2former-", "CC-BY-NC-4.0", _CHENG, True),
    ("caidas/swin2SR-", "Apache-2.0", _CONDE, False),
    ("shi-labs/oneformer_", "MIT", _JAIN, False),
    ("tue-mps/eomt-dinov3-", "MIT AND DINOv3 License", _KERSSIES, False),
    ("tue-mps/", "MIT", _KERSSIES, False),
    ("Roboflow/rf-detr-seg-", "Apache-2.0", _ROBINSON, False),
    ("Intel/dpt-", "Apache-2.0", "Ranftl et al. 2021, DPT, arXiv:2103.13413", False),
)


def of_hub(name: str) -> WeightSource:
    """Return the source of weights from a folder, or from the Hugging Face hub by name."""
    if Path(name).exists():
        return of_file(name)
    url = "https://huggingface.co/" + name.partition("@")[0]
    for start, licence, citation, closed in _HUB:
        if name.startswith(start):
            return WeightSource(name, licence, url, citation, closed)
    return WeightSource(name, UNKNOWN, url)
