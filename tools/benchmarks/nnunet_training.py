"""Train nnU-Net v2 for a stated time; runs in nnU-Net's own environment, without this project.

nnUNet_raw=... nnUNet_preprocessed=... nnUNet_results=... python nnunet_training.py 101 MINUTES

Everything is as nnU-Net plans it (Isensee et al., Nature Methods 18, 2021) but for three things: a
batch is as large as said, because its plans fill a GPU's memory; the time is a processor's, and the
learning rate falls by the time that is used instead of by epochs; nothing is validated on the way.
`done.json` of each fold has its steps and a core's minutes; such a fold is not done again.
"""

import argparse
import json
import os
import random
import time
from pathlib import Path
from typing import Any

CONFIGURATION, PLANS = "2d", "nnUNetPlans"
_PREPROCESSED, _SPLITS, _PREPARED = "nnUNet_preprocessed", "splits_final.json", "prepared"
_WORKERS = "nnUNet_n_proc_DA"
_STEPS_OF_RATE = 10_000
_STEPS_AT_A_TIME = 5


def main() -> None:
    """Plan, preprocess, and train and predict each fold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("dataset", type=int)
    parser.add_argument("minutes", type=float, help="of a core, for the steps of each fold")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = prepare(given.dataset, given.batch)
    for fold in range(len(json.loads((folder / _SPLITS).read_text()))):
        train(given.dataset, fold, 60 * given.minutes, given.seed)


def prepare(dataset: int, batch: int) -> Path:
    """Plan and preprocess; return the folder of preprocessed data."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
        preprocess,
    )
    from nnunetv2.utilities.dataset_name_id_conversion import convert_id_to_dataset_name

    name = convert_id_to_dataset_name(dataset)
    folder = Path(os.environ[_PREPROCESSED], name)
    plans = folder / f"{PLANS}.json"
    if not (folder / _PREPARED).is_file():
        extract_fingerprints([dataset], check_dataset_integrity=True)
        plan_experiments([dataset])
        found = json.loads(plans.read_text())
        found["configurations"][CONFIGURATION]["batch_size"] = batch
        plans.write_text(json.dumps(found, indent=1))
        preprocess([dataset], PLANS, (CONFIGURATION,), (2,))
        (folder / _PREPARED).touch()
    return folder


def train(dataset: int, fold: int, seconds: float, seed: int) -> None:
    """Train a fold for so many seconds of a core, and predict what it holds out."""
    import numpy as np
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    # Augmentation in this process: its time is counted, and it can be repeated. Plans want more.
    os.environ[_WORKERS] = "0"
    random.seed(seed + fold)
    np.random.seed(seed + fold)
    torch.manual_seed(seed + fold)
    start = used()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer: Any = get_trainer_from_args(
        str(dataset), CONFIGURATION, fold, plans_identifier=PLANS, device=device
    )
    done = Path(trainer.output_folder, "done.json")
    if done.is_file():
        return
    trainer.disable_checkpointing = True
    trainer.on_train_start()
    trainer.network.train()
    trainer.lr_scheduler.max_steps = _STEPS_OF_RATE
    began, steps = used(), 0
    while (spent := (used() - began) / seconds) < 1:
        trainer.lr_scheduler.step(int(_STEPS_OF_RATE * spent))
        for _ in range(_STEPS_AT_A_TIME):
            loss = trainer.train_step(next(trainer.dataloader_train))["loss"]
        steps += _STEPS_AT_A_TIME
        print(f"fold {fold}: step {steps}, {spent:.0%} of the time, loss {loss:.4f}", flush=True)
    trainer.on_train_end()
    trainer.perform_actual_validation(save_probabilities=True)
    done.write_text(json.dumps({"steps": steps, "core_minutes": (used() - start) / 60}))


def used() -> float:
    """Return the seconds that cores have worked for this process; with a GPU, those of a clock."""
    import torch

    return time.monotonic() if torch.cuda.is_available() else sum(os.times()[:4])


if __name__ == "__main__":
    main()
