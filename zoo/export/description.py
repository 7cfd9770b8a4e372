"""What an exported folder holds, `model.json`: enough to predict without the run and without torch.

It names no file of the machine that it was made on, no image and no patient.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    PlainSerializer,
    PlainValidator,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from converters.files.json_files import dump_json, read_json
from converters.types import LabelSpace
from fusion.types import Kind
from zoo.config import StrictModel, check_config
from zoo.data.reading import COLOR_DEVIATION, COLOR_MEAN, GREY_DEVIATION, GREY_MEAN
from zoo.families.refiner.patches import STRIDE as PATCH_STRIDE
from zoo.families.refiner.patches import Input, Places
from zoo.inference.detections import DetectionSetting, count_values
from zoo.inference.setting import Activation, View
from zoo.metadata.columns import Columns

FILE, FUSION = "model.json", "fusion.yaml"
FORMAT: Literal["maskzoo-export"] = "maskzoo-export"
# Where the networks' masks end: the probability from which on a pixel is a class's.
THRESHOLD = 128 / 255
Size = tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]]
# A plain name: no folder, nothing hidden.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _space(given: Any) -> LabelSpace:
    # A name would be looked for among files.
    if not isinstance(given, dict | LabelSpace):
        raise ValueError("expected a label space, with all that it has")
    return given if isinstance(given, LabelSpace) else LabelSpace.of_record(given)


def _columns(given: Any) -> Columns:
    found = given if isinstance(given, Columns) else Columns.of_record(given)
    if Path(found.file).name != found.file:
        raise ValueError(f"expected a table's name, without folders, found '{found.file:.80}'")
    return found


class FileEntry(StrictModel):
    """A file of the folder.

    Attributes:
        file: its name.
        sha256: of its content, in hex.
    """

    file: Name
    sha256: Digest

    def read(self, folder: Path) -> bytes:
        """Read the file.

        Raises:
            ValueError: it is missing, or another one than was written.
        """
        path = folder / self.file
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ValueError(
                f"{path}: expected the file that {FILE} names, found: {error.strerror}; copy the "
                "whole folder again"
            ) from None
        if digest_of(content) != self.sha256:
            raise ValueError(
                f"{path}: expected the file that was exported, found another content (its SHA-256 "
                f"is not that in {FILE}); copy the whole folder again"
            )
        return content


class NetworkEntry(FileEntry):
    """An ONNX network: `image`, float32 (N, c, h, w), to what its source says.

    What a refiner takes stands in `RefinerEntry`.
    A semantic network may also take `metadata`, float32 (N, k): column after column either its
    standardised number, (value - mean) / deviation, or a number a category, of which one is 1; and
    then 1 where the value is missing, its numbers being 0, else 0.

    Attributes:
        data: a file beside it with its weights, where they are too many for one.
        batch: it takes so many images at a time; None takes any number.
        size: it takes images of this height and width alone; None takes any that are multiples of
            the source's `stride`.
        weights: SHA-256 of the weights that it was exported from.
        difference: largest absolute difference of its probabilities from torch's, on the samples
            on which both were compared.
        metadata: the columns that it takes, each with its categories, or else its mean and
            deviation, and the name of the table that has them, "" for the data set's own
            attributes; None: it takes images alone.
    """

    data: FileEntry | None = None
    batch: int | None = Field(default=None, gt=0)
    size: Size | None = None
    weights: str = ""
    difference: float = Field(ge=0)
    metadata: (
        Annotated[Columns, PlainValidator(_columns), PlainSerializer(Columns.record)] | None
    ) = None

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What takes images alone is described as it was before there were others.
        found: dict[str, Any] = dump(self)
        if self.metadata is None:
            found.pop("metadata", None)
        return found


class Licence(StrictModel):
    """Whose pretrained weights a network started from; see `zoo.run_files.licences`."""

    source: str
    licence: str
    url: str = ""
    citation: str = ""
    is_non_commercial: bool | None = None


class _Entry(StrictModel):
    """What a run, or the runs of all folds, became: one opinion of an image.

    Attributes:
        name: of the run's folder; a fusion rule knows the source by it.
        family: of the network.
        batch: images, or windows, at a time.
        networks: one, or one a fold.
        seed: that they were trained with.
        split: digest of the folds; "" without. The folds themselves, which name patients, stay.
        fold: the fold that was held out; None: none, or each by one network.
        licences: of pretrained weights, and of code that makes its networks its own.
    """

    name: str = Field(min_length=1, max_length=200)
    family: str
    batch: int = Field(gt=0)
    networks: tuple[NetworkEntry, ...]
    seed: int = 0
    split: str = ""
    fold: int | None = None
    licences: tuple[Licence, ...] = ()

    @model_validator(mode="after")
    def _some_networks(self) -> Self:
        if not self.networks:
            raise ValueError("networks: expected at least one, found none")
        return self


class _StretchedEntry(_Entry):
    """A source whose networks are shown images of one size.

    Images are decoded to 8 bits, stretched to `size` (their aspect is not kept; pixels are averaged
    where both sides shrink, else interpolated), divided by 255, and normalised: minus `mean`,
    divided by `deviation`, a channel each.

    Attributes:
        channels: 1 is grey, 3 is red, green and blue.
        size: height and width that images are stretched to.
        mean: of each channel, of values in 0..1.
        deviation: of each channel.
    """

    channels: Literal[1, 3]
    size: Size
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @model_validator(mode="after")
    def _known_values(self) -> Self:
        if (self.mean, self.deviation) != normalisation(self.channels):
            raise ValueError(
                f"mean, deviation: expected {normalisation(self.channels)}, as this version shows "
                f"images, found {(self.mean, self.deviation)}"
            )
        return self


class SourceEntry(_StretchedEntry):
    """A semantic source: networks that give `logits`, float32 (N, C, h', w').

    Probabilities are `activation` of the logits; several networks' are averaged.

    Attributes:
        kind: of source.
        window: height and width of the windows in which they are seen; None: as a whole.
        overlap: how much of a window's side the next one repeats.
        stride: of which number sides are multiples.
        activation: see `zoo.inference.setting.Activation`.
    """

    kind: Literal["semantic"] = "semantic"
    window: Size | None = None
    overlap: float = Field(ge=0, lt=1)
    stride: int = Field(gt=0)
    activation: Activation

    @property
    def view(self) -> View:
        """What the networks see of an image where no options say otherwise."""
        return View(self.size, self.window, self.overlap)


class DetectorEntry(_Entry):
    """An instance source: networks that give `detections` and `prototypes`, float32.

    Images are decoded to 8 bits in colour, placed in the middle of a grey square of `imgsz` pixels,
    and divided by 255. What the outputs are, and how they become masks, stands in
    `zoo.inference.detections`; detections of several networks that mean the same object are one.

    Attributes:
        kind: of source.
        imgsz: see `zoo.inference.detections.DetectionSetting`, as the next four.
        conf: a score.
        raster: cells.
        margin_px: pixels.
        end_to_end: which head.
        prototypes: their number.
    """

    kind: Literal["instance"] = "instance"
    imgsz: int = Field(gt=0)
    conf: float = Field(ge=0, le=1)
    raster: float = Field(gt=0)
    margin_px: float = Field(ge=0)
    end_to_end: bool
    prototypes: int = Field(gt=0)

    @property
    def setting(self) -> DetectionSetting:
        """How an output becomes a prediction."""
        return DetectionSetting(self.imgsz, self.conf, self.raster, self.margin_px, self.end_to_end)

    def values(self, classes: int) -> int:
        """Return how many numbers a detection has."""
        return count_values(classes, self.prototypes, self.end_to_end)


class QueryEntry(_StretchedEntry):
    """An instance source of queries: networks that give `scores` and `masks`, float32.

    Scores, (N, Q, C), say how sure each query is of being an instance of each class; masks,
    (N, Q, h', w'), are the logits of its pixels. How they become instances stands in
    `zoo.inference.instances`; those of several networks that mean the same object are one. Of an
    image's queries, one in 20 may differ from torch's by more than a network's `difference`.

    Attributes:
        kind: of source.
        queries: their number.
        conf: a score that an instance exceeds.
    """

    kind: Literal["queries"] = "queries"
    queries: int = Field(gt=0)
    conf: float = Field(ge=0, lt=1)


class BoxEntry(_StretchedEntry):
    """An instance source of boxes: networks that give `boxes`, `scores`, `labels` and `probs`.

    Boxes, float32 (N, D, 4), are left, top, right and bottom in pixels of the stretched image, as
    torchvision counts them: 0 is the centre of the first pixel. Labels, (N, D), count classes from
    1; probs, (N, D, m, m), are the probabilities of a box's mask. What has a score, (N, D), of 0 is
    nothing. How they become instances stands in `zoo.inference.instances`; those of several
    networks that mean the same object are one. Of an image's boxes, one in 20 may differ from
    torch's by more than a network's `difference`.

    Attributes:
        kind: of source.
        boxes: their number.
        cells: rows and columns of a mask.
    """

    kind: Literal["boxes"] = "boxes"
    boxes: int = Field(gt=0)
    cells: int = Field(gt=0)


class RefinerEntry(_Entry):
    """A source that mends what others say: networks of `planes` and `classes` to `change`, float32.

    Planes, (N, P, h, w), are what is seen in patches of an image, each of one class; classes,
    (N, C), are rows in which the class's number is 1, where "class" is among `inputs`; change,
    (N, 1, h, w), is log odds to be added to those of a rule's answer. Where patches lie, what is in
    the planes and how patches are joined stands in `zoo.families.refiner`; the masks of several
    networks are averaged.

    Attributes:
        kind: of source.
        channels: of images; 1 is grey, 3 is red, green and blue.
        size: height and width of a patch.
        places: see `zoo.families.refiner.config.RefinerConfig`, as the next two.
        detail: pixels of a patch along a cell of the finest source.
        inputs: what the network is given beside the fused log odds.
        sources: the other sources, in the rules' order.
        rules: that fuse them, one a network.
    """

    kind: Literal["refiner"] = "refiner"
    channels: Literal[1, 3]
    size: Size
    places: Places
    detail: float = Field(gt=0, allow_inf_nan=False)
    inputs: tuple[Input, ...]
    sources: tuple[str, ...]
    rules: tuple[FileEntry, ...]

    @model_validator(mode="after")
    def _a_rule_each(self) -> Self:
        if any(side % PATCH_STRIDE for side in self.size):
            raise ValueError(f"size: expected multiples of {PATCH_STRIDE}, found {self.size}")
        if len(self.rules) != len(self.networks):
            raise ValueError(
                f"rules: expected one a network, {len(self.networks)}, found {len(self.rules)}"
            )
        return self

    @property
    def in_channels(self) -> int:
        """Of images."""
        return self.channels


Entry = Annotated[
    SourceEntry | DetectorEntry | QueryEntry | BoxEntry | RefinerEntry, Field(discriminator="kind")
]


class Description(StrictModel):
    """All of `model.json`.

    Attributes:
        format: tells such a folder from others.
        version: of the layout.
        labels: the classes.
        opset: the version of ONNX's operators.
        threshold: probability from which on a pixel is a class's, where classes may share pixels.
        tolerance: what differences of probabilities from torch's were allowed.
        sources: one opinion each.
        fusion: the rule that makes one of several.
        made_with: versions of what exported them.
    """

    format: Literal["maskzoo-export"] = FORMAT
    version: Literal[1] = 1
    labels: Annotated[LabelSpace, PlainValidator(_space), PlainSerializer(LabelSpace.record)]
    opset: int
    threshold: float = THRESHOLD
    tolerance: float
    sources: tuple[Entry, ...]
    fusion: FileEntry | None = None
    made_with: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_answer(self) -> Description:
        names = [source.name for source in self.sources]
        if not names:
            raise ValueError("sources: expected at least one, found none")
        if len(set(names)) < len(names):
            raise ValueError("sources: expected each name once")
        known = {s.name for s in self.sources if not isinstance(s, RefinerEntry)}
        for refiner in self.refiners:
            if not refiner.sources or not set(refiner.sources) <= known:
                raise ValueError(
                    f"sources: {refiner.name}: expected others that the folder has, found "
                    f"{', '.join(refiner.sources) or 'none'}"
                )
        if self.fusion is None and self._answer is None:
            raise ValueError("fusion: expected a rule where there are several sources, found none")
        return self

    @property
    def refiners(self) -> tuple[RefinerEntry, ...]:
        """The sources that mend others."""
        return tuple(source for source in self.sources if isinstance(source, RefinerEntry))

    @property
    def _answer(self) -> Entry | None:
        """Return the source that answers by itself; None: a rule has to."""
        if len(self.sources) == 1:
            return self.sources[0]
        # What looks at all the others speaks for them.
        names = {source.name for source in self.sources}
        found = [one for one in self.refiners if {one.name, *one.sources} == names]
        return found[0] if found else None

    @property
    def answer(self) -> str:
        """Name of the source that answers where no rule fuses them."""
        return self._answer.name if self._answer else ""

    @property
    def kind(self) -> Kind:
        """Of the folder's predictions: what is fused is semantic."""
        is_semantic = self.fusion or isinstance(self._answer, SourceEntry | RefinerEntry)
        return "semantic" if is_semantic else "instance"

    @property
    def difference(self) -> float:
        """The largest difference of all networks."""
        return max(n.difference for source in self.sources for n in source.networks)

    def dumps(self) -> str:
        """Return it as JSON text."""
        return dump_json(self.model_dump(mode="json"))


def normalisation(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation of each channel's values in 0..1."""
    if channels == 1:
        return (GREY_MEAN,), (GREY_DEVIATION,)
    return COLOR_MEAN, COLOR_DEVIATION


def digest_of(content: bytes) -> str:
    """Return the SHA-256 of a file's content, in hex."""
    return hashlib.sha256(content).hexdigest()


def is_exported(folder: Path) -> bool:
    """Tell whether a folder holds an exported model, whole or not."""
    return (folder / FILE).is_file()


def read_description(folder: Path) -> Description:
    """Read a folder's `model.json`.

    Raises:
        ValueError: no such file, or none of this kind; names the file and the key.
    """
    path = folder / FILE
    raw = read_json(path, "the description of an exported model")
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise ValueError(f"{path}: expected 'format': '{FORMAT}' (zoo export), found another thing")
    return check_config(Description, raw, str(path))
