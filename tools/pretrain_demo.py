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

from zoo.run_files.checkpoints import export_weights, find_weights

ROOT = Path(__file__).resolve().parent.parent
PHANTOM = "--people 150 --test-people 1 --size 512 --bent-train 0.5 --seed 20000"
# Each family's stages; a stage starts from the weights of the one before. SegFormer, which knows
# nothing of neighbourhoods at first, learns the hand's layout faster on small, plain images.
STAGES = {
    "smp": ["epochs=26 validate_every=5 optim.lr=2e-3 optim.warmup_steps=60"],
    "segformer": [
        "size=[128,128] batch=4 augment=[] epochs=20 validate_every=20 optim.lr=2e-3"
        " optim.warmup_steps=50 optim.schedule=constant",
        "epochs=6 validate_every=6 optim.lr=1e-3 optim.warmup_steps=20",
    ],
    "yolo": ["epochs=22 validate_every=5 lr0=2e-3 warmup_epochs=3"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for data and runs")
    parser.add_argument("--families", default=",".join(STAGES))
    parser.add_argument("--jobs", type=int, default=2, help="processes that draw phantoms")
    options = parser.parse_args()
    work = options.work.resolve()
    data, split = work / "data", work / "split.json"
    if not data.exists():
        zoo(f"phantom {data} {PHANTOM} --jobs {options.jobs}")
    zoo(f"split {data} --out {split} --folds 20")
    for family in options.families.split(","):
        init = "null"
        for number, changes in enumerate(STAGES[family], start=1):
            run = work / "runs" / f"{family}-{number}"
            source = f"--data {data} --split {split} --fold 0 --out {run}"
            zoo(f"train {family} --config demo {source} init={init} {changes}")
            init = str(find_weights(run))
        export_weights(Path(init), ROOT / "configs" / family / "demo.safetensors")


def zoo(line: str) -> None:
    subprocess.run([sys.executable, "-m", "zoo", *shlex.split(line)], check=True, cwd=ROOT)


if __name__ == "__main__":
    main()
