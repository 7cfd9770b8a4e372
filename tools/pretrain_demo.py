"""Make the small checkpoints that `zoo demo` starts from: configs/*/demo.safetensors.

    python tools/pretrain_demo.py --work WORK [--families smp,segformer,yolo] [--jobs 16]

Everything is trained from random weights on phantoms whose seed the demo never uses, with the demo's
own configs but more images, more epochs and larger batches. Half of the training wrists are bent, so
that the networks have seen both postures. On one data-centre GPU the three take about twenty minutes; killed,
it continues.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SEED = 20_000
PHANTOM = "--people 500 --test-people 1 --size 512 --bent-train 0.5"
CHANGES = {
    "smp": "init=null epochs=160 batch=32 optim.lr=3e-3 optim.warmup_steps=200 validate_every=40",
    "segformer": "init=null epochs=260 batch=32 optim.lr=1e-3 optim.warmup_steps=400"
    " validate_every=65",
    "yolo": "init=null epochs=200 batch=32 lr0=2e-3 validate_every=50",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for data and runs")
    parser.add_argument("--families", default=",".join(CHANGES))
    parser.add_argument("--jobs", type=int, default=8, help="processes for phantoms and batches")
    parser.add_argument("changes", nargs="*", help="key.sub=value ..., for every family")
    options = parser.parse_args()
    data, split = options.work / "data", options.work / "split.json"
    if not data.exists():
        zoo(f"phantom {data} {PHANTOM} --seed {SEED} --jobs {options.jobs}")
    zoo(f"split {data} --out {split} --folds 20")
    for family in options.families.split(","):
        run = options.work / "runs" / family
        changes = [*CHANGES[family].split(), f"workers={options.jobs}", *options.changes]
        source = f"--data {data} --split {split} --fold 0"
        zoo(f"train {family} --config demo {source} --out {run} {' '.join(changes)}")
        export(run, ROOT / "configs" / family / "demo.safetensors")


def zoo(line: str) -> None:
    subprocess.run([sys.executable, "-m", "zoo", *shlex.split(line)], check=True, cwd=ROOT)


def export(run: Path, target: Path) -> None:
    from zoo.checkpoints import export_weights, find_weights

    export_weights(find_weights(run), target)


if __name__ == "__main__":
    main()
