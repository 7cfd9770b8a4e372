"""A prediction as a small picture for a notebook."""

from __future__ import annotations

from functools import partial

from converters.pictures.drawing import read_view
from converters.pictures.figure import Picture, draw_picture
from converters.types import LabelSpace, Sample
from fusion.binary import binary_masks
from fusion.types import Prediction


def show(
    prediction: Prediction, sample: Sample | None = None, labels: LabelSpace | None = None
) -> Picture:
    """Return a prediction's masks, on the image where that is known.

    Args:
        prediction: what is shown; masks as a submission holds them.
        sample: its image; None draws on black, for a prediction does not know its image.
        labels: the classes, as for `converters.pictures.figure.show`; without them each class is
            drawn by itself, all of its detections from one half on.

    Raises:
        ValueError: the sample is another image's.
    """
    if sample is not None and sample.key != prediction.key:
        raise ValueError(
            f"show: expected the sample '{prediction.key}' of the prediction, found '{sample.key}'"
        )
    if sample is not None and tuple(sample.size_hw) != tuple(prediction.size_hw):
        raise ValueError(
            f"show: '{sample.key}': expected {prediction.size_hw} pixels (height, width) as "
            f"predicted, found {sample.size_hw}"
        )
    if labels is None:
        masks = {name: prediction.binary(name, once=False) for name in prediction.masks}
    else:
        masks = binary_masks(prediction, labels)
        masks.pop(labels.background or "", None)
    read = partial(read_view, sample) if sample is not None else None
    return draw_picture(prediction.key, prediction.size_hw, masks, labels, read)
