"""Speed of exported networks on the CPU, beside torch, in one run and in turns.

Networks have random weights: what they hold does not matter to their time. Both sides have as many
threads, and see one image at a time, of the config's size.
"""

import tempfile
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

import configs
from converters.strict_yaml import read_yaml
from zoo.config import check_config
from zoo.export.conversion import NetworkShape, convert, measure
from zoo.export.session import OnnxNetwork
from zoo.families import load_family

USUAL = "smp/laptop,segformer/laptop,smp/unet_resnet34"


def run(
    networks: Annotated[str, typer.Option(help="FAMILY/CONFIG, with commas.")] = USUAL,
    repetitions: Annotated[int, typer.Option(help="How often both sides run.")] = 20,
    size: Annotated[int, typer.Option(help="Side of the images; 0 is the config's.")] = 0,
    threads: Annotated[int, typer.Option(help="Of each side; 0 is as torch has it.")] = 0,
) -> None:
    """Export networks and print what an image costs, by torch and by onnxruntime."""
    if threads:
        torch.set_num_threads(threads)
    print("| network | size | MB | differs by | torch, ms | onnxruntime, ms | times |")
    print("|---|---|---|---|---|---|---|")
    for name in networks.split(","):
        print(_row(name, repetitions, (size, size) if size else None), flush=True)


def _row(name: str, repetitions: int, size_hw: tuple[int, int] | None) -> str:
    family_name, config_name = name.split("/")
    family: Any = load_family(family_name)
    raw = read_yaml(configs.find(family_name, config_name), "a config")
    raw |= {"size": list(size_hw)} if size_hw else {}
    config: Any = family.without_weights(check_config(family.Config, raw, name))
    torch.manual_seed(0)
    network = family.build(config, len(config.labels)).eval()
    shape = NetworkShape.of(config)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        entry = convert(network, shape, folder, "network.onnx")
        large = (folder / "network.onnx").stat().st_size / 1e6
        opened = OnnxNetwork(
            folder, entry, shape.channels, shape.classes, threads=torch.get_num_threads()
        )
        given = list(shape.samples(1, shape.size_hw).values())
        found = measure(network, opened, given, repetitions)
    sides = [
        f"{m:.0f} ({low:.0f} to {high:.0f})" for m, low, high in (found.torch_ms, found.onnx_ms)
    ]
    high, wide = shape.size_hw
    gain = found.torch_ms[0] / found.onnx_ms[0]
    return (
        f"| {name} | {high} x {wide} | {large:.0f} | {entry.difference:.1e} | {sides[0]} "
        f"| {sides[1]} | {gain:.1f} |"
    )
