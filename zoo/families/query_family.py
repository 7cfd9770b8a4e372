"""What the families share whose networks are transformers', with queries that are the instances."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch

from zoo.families.hub import load_pretrained, quiet
from zoo.families.instances import InstanceFamily
from zoo.families.queries import ExportableQueries, QueryNetwork
from zoo.run_files.licences import WeightSource, of_hub

# In a run folder: the network's dimensions, which a pretrained one brings along.
ARCHITECTURE = "network.json"


class QueryFamily(InstanceFamily):
    """A family of transformers' networks whose queries are the instances.

    Its configs have either `pretrained` or `network`, and `loss_weights`, by transformers' names.

    Attributes:
        known: beginning of a name on the hub -> dimensions of the networks that are called so.
        title: what people call such a network, with its article.
        anew: beginnings of the names of weights that know the classes.
    """

    known: ClassVar[Mapping[str, Any]]
    title: str
    anew: tuple[str, ...]

    @abstractmethod
    def model(self, config: Any) -> Any:
        """Return transformers' class of a config's network."""

    @abstractmethod
    def describe_network(self, config: Any, classes: int) -> Any:
        """Return transformers' config of a network that has dimensions."""

    @abstractmethod
    def wrap(self, network: Any, config: Any) -> QueryNetwork:
        """Return the network that learns and finds instances.

        Raises:
            ValueError: the network does not take images of the config's size.
        """

    def further(self, config: Any) -> dict[str, Any]:
        """Return what else a pretrained network is told."""
        return {}

    def build(self, config: Any, classes: int) -> QueryNetwork:
        """Return a network to train.

        Raises:
            ValueError: the pretrained weights cannot be had, or are of another network.
        """
        model = self.model(config)
        if config.network is not None:
            return self._create(model, self.describe_network(config, classes), config)
        name = str(config.pretrained)
        told = {"num_labels": classes, "dtype": torch.float32, **self.further(config)}
        told |= config.loss_weights.model_dump()
        network, info = load_pretrained(model, name, "pretrained=null and network", **told)
        self._check_all_but_classes(name, info)
        return self.wrap(network, config)

    def rebuild(self, run: Path, config: Any, classes: int) -> QueryNetwork:
        """Return the network of a run, without its weights and without a download.

        Raises:
            ValueError: the run does not say what its network looks like.
        """
        model, path = self.model(config), run / ARCHITECTURE
        try:
            architecture = model.config_class.from_json_file(str(path))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: expected the network's dimensions: {error}") from None
        return self._create(model, architecture, config)

    def without_weights(self, config: Any) -> Any:
        """Return the config of the same network with random weights.

        Raises:
            ValueError: only the pretrained weights say what the network is like.
        """
        if config.network is not None:
            return config
        name = str(config.pretrained)
        known = next((d for start, d in self.known.items() if name.startswith(start)), None)
        if known is None:
            raise ValueError(f"pretrained '{name}': its dimensions come with the weights")
        return config.model_copy(update={"pretrained": None, "network": known})

    def describe(self, run: Path, network: Any) -> None:
        """Leave the network's dimensions, which a pretrained one brings along."""
        network.network.config.to_json_file(str(run / ARCHITECTURE))

    def open_queries(self, run: Path, config: Any) -> ExportableQueries:
        """Rebuild a run's network on the CPU, to be exported.

        Raises:
            ValueError: the run has no weights, or those of another network.
        """
        network: Any = self.load(run, config)
        return ExportableQueries(network)

    def sources(self, config: Any) -> list[WeightSource]:
        """Return whose pretrained weights the network starts from."""
        return [of_hub(config.pretrained)] if config.pretrained else []

    def _create(self, model: Any, architecture: Any, config: Any) -> QueryNetwork:
        with quiet():
            return self.wrap(model(architecture), config)

    def _check_all_but_classes(self, name: str, info: dict[str, Any]) -> None:
        # What knows the classes starts anew.
        keys = [*info["missing_keys"], *(entry[0] for entry in info["mismatched_keys"])]
        if wrong := sorted(key for key in keys if not key.startswith(self.anew)):
            raise ValueError(
                f"pretrained '{name}': expected weights of {self.title}, found others: "
                f"{len(wrong)} differ, such as '{wrong[0]}'"
            )
