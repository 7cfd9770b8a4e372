"""The card of a Hugging Face data set: where its files are, and how to use them."""

from __future__ import annotations

from collections.abc import Sequence

from converters.types import LabelSpace

_CARD = """---
task_categories:
- image-segmentation
configs:
- config_name: default
  data_files:
{files}---

# {name}

Images with one mask for each of {classes} classes. A pixel can have several classes: in `mask`,
read as RGBA, bit `c % 8` of channel `c // 8` is class `c`.{further} Do not convert the mask's mode
and do not premultiply its alpha channel: all four channels are data.

`key` names the image, `group` what must stay in one fold, such as a patient; `attributes` and
`frame` are JSON: what else is known, and where a crop lies in its original.

## Load

```python
{load}
```

## Train

`pixel_values` are what `SegformerImageProcessor` makes of the image; `labels` are 0 or 1, uint8
(classes, height, width), for a sigmoid and a binary loss for each class. A `DataLoader` makes
tensors of both.

```python
from converters.formats.hf.dataset import Transform

rows["train"].set_transform(Transform(size_hw=(512, 512), classes={classes}))
```

## Classes

`id2label.json` has them for `SegformerConfig(id2label=...)`.

| number | class |
|---|---|
{table}
"""

_FURTHER = " Class `32 + c` is class `c` of `mask_1`, and so on, up to `mask_{last}`."
_LOAD = {
    "arrow": "from datasets import load_from_disk\n\nrows = load_from_disk(FOLDER)",
    "parquet": "from datasets import load_dataset\n\nrows = load_dataset(FOLDER)",
}
_FILES = {"arrow": "{}/data-*.arrow", "parquet": "data/{}-*.parquet"}


def card(layout: str, labels: LabelSpace, splits: Sequence[str]) -> str:
    """Return the card as Markdown, with the header by which `load_dataset` finds the files.

    Args:
        layout: `arrow` or `parquet`.
        labels: the classes.
        splits: such as `train`, `validation`.
    """
    files = [f"  - split: {name}\n    path: {_FILES[layout].format(name)}\n" for name in splits]
    table = [f"| {i} | {name.replace('|', chr(92) + '|')} |" for i, name in enumerate(labels.names)]
    last = (len(labels) - 1) // 32
    return _CARD.format(
        further=_FURTHER.format(last=last) if last else "",
        files="".join(files),
        name=labels.name,
        classes=len(labels),
        load=_LOAD[layout],
        table="\n".join(table),
    )
