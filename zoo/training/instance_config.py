"""The config of the trainer that the instance families share whose networks our loop trains."""

from __future__ import annotations

from pydantic import Field

from zoo.config import RunConfig
from zoo.training.config import TrainerConfig


class InstanceConfig(TrainerConfig, RunConfig):
    """How a network is trained that finds every object by itself.

    Where the label space says that a class occurs once in an image, its parts are one instance;
    otherwise each annotated object is one.

    Attributes:
        conf: instances that are less sure are dropped.
    """

    conf: float = Field(default=0.05, ge=0, lt=1)
