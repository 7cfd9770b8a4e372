"""The settings of metadata, which all semantic families share."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from converters.files.lines import TABLE_SUFFIXES
from zoo.config import StrictModel

Kind = Literal["auto", "number", "category"]


class MetadataConfig(StrictModel):
    """What is known of an image or patient beside the pixels, and what a network does with it.

    Attributes:
        columns: of the table or of the data set's own attributes: a list of names, or name ->
            `number`, `category`, or `auto`: numbers where all values are numbers. An empty cell,
            `nan`, `na` and `n/a` are missing values.
        file: table (.csv, .tsv) with a row an image or patient, found as `zoo split --group-by`
            finds it; null takes what the data set says by itself, such as the hand competition's
            `meta_data.xlsx` (age, sex, weight, height).
        use: `input` shows them to the network, `task` lets it predict them, `both` does both.
        weight: of the task's loss, beside those of the masks.
        dropout: of an input: the chance that a column is shown as missing while learning, and that
            all of an image's are, so that prediction does without.
        width: of the hidden layer that makes scales and shifts of the input.
    """

    columns: dict[str, Kind] = Field(min_length=1)
    file: str | None = None
    use: Literal["input", "task", "both"] = "input"
    weight: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    width: int = Field(default=64, gt=0)

    @field_validator("columns", mode="before")
    @classmethod
    def _names_alone(cls, given: Any) -> Any:
        if not isinstance(given, list | tuple):
            return given
        names = [name for name in given if isinstance(name, str) and name]
        if len(set(names)) < len(given):
            raise ValueError(f"expected names of columns, each once, found {list(given)!r:.80}")
        return dict.fromkeys(names, "auto")

    @field_validator("file")
    @classmethod
    def _is_table(cls, file: str | None) -> str | None:
        if file is not None and not file.lower().endswith(TABLE_SUFFIXES):
            raise ValueError(
                f"expected a table, .csv or .tsv, found '{file:.80}'; what a data set says by "
                "itself, such as meta_data.xlsx, is read without 'file'"
            )
        return file

    @property
    def is_input(self) -> bool:
        """Whether the network is shown the columns."""
        return self.use != "task"

    @property
    def is_task(self) -> bool:
        """Whether the network predicts the columns."""
        return self.use != "input"
