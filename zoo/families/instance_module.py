"""An instance network as Lightning wants it."""

from __future__ import annotations

import torch

from zoo.data import normalize, unpack_on_device
from zoo.families.instances import InstanceNetwork
from zoo.training.module import Batch, NetworkModule


class InstanceModule(NetworkModule):
    """A network that computes its loss by itself, with its optimizer."""

    network: InstanceNetwork

    def training_step(self, batch: Batch, number: int) -> torch.Tensor:
        """Return the loss of images, uint8 (N, 1, h, w), and bit-packed masks."""
        images, packed = batch
        objects = self._data.objects or tuple(range(self.classes))
        masks = unpack_on_device(packed, len(objects), torch.bool)
        classes = torch.tensor(objects, device=masks.device)
        return self.network.loss(normalize(images), masks, classes)
