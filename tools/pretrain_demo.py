"""Make the small checkpoints that `zoo demo` starts from: configs/*/demo.safetensors.

    python tools/pretrain_demo.py --work WORK [--families smp,segformer,yolo] [--jobs 2]

Everything is trained from random weights on phantoms whose seed the demo never uses, with the
demo's own networks but more images and more epochs. Half of the training wrists are bent, so that
the networks have seen both postures. On two CPU cores the three take about an hour; killed, it
continues.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PHANTOM = "--people 150 --test-people 1 --size 512 --bent-train 0.5 --seed 20000"
CHANGES = {
    "smp": "epochs=26 optim.lr=2e-3 optim.warmup_steps=60",
    "segformer": "epochs=18 optim.lr=1e-3 optim.warmup_steps=100",
    "yolo": "epochs=22 lr0=2e-3 warmup_epochs=3",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for data and runs")
    parser.add_argument("--families", default=",".join(CHANGES))
    parser.add_argument("--jobs", type=int, default=2, help="processes that draw phantoms")
    options = parser.parse_args()
    work = options.work.resolve()
    data, split = work / "data", work / "split.json"
    if not data.exists():
        zoo(f"phantom {data} {PHANTOM} --jobs {options.jobs}")
    zoo(f"split {data} --out {split} --folds 20")
    for family in options.families.split(","):
        run = work / "runs" / family
        source = f"--data {data} --split {split} --fold 0 --out {run}"
        zoo(f"train {family} --config demo {source} init=null validate_every=5 {CHANGES[family]}")
        export(run, ROOT / "configs" / family / "demo.safetensors")


def zoo(line: str) -> None:
    subprocess.run([sys.executable, "-m", "zoo", *shlex.split(line)], check=True, cwd=ROOT)


def export(run: Path, target: Path) -> None:
    from zoo.checkpoints import export_weights, find_weights

    export_weights(find_weights(run), target)


if __name__ == "__main__":
    main()
