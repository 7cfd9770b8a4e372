"""YOLO instance segmentation through Ultralytics: its trainer, our data, scores and soft masks.

Ultralytics' code and weights are AGPL-3.0. Whoever installs the extra `yolo` and uses this family takes on
that licence for what they build with it; the rest of the project does not import it.

A run's weights are `checkpoints/{best,last}.safetensors`: the state of the averaged network, in fp32.
Prediction rebuilds the network from the config and loads them, so that nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import batched
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch
import yaml
from pydantic import Field, field_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import configs
import converters.yolo
from converters.types import LabelSpace, Sample
from fusion.metrics import Scores
from fusion.types import Kind, Prediction
from zoo.config import RunConfig
from zoo.devices import choose_device, choose_precision
from zoo.evaluate import score_prediction
from zoo.families import ultralytics_trainer as trainer
from zoo.families.base import PredictOptions, TrainJob
from zoo.families.ultralytics_masks import Letterbox, best_detections, soft_masks
