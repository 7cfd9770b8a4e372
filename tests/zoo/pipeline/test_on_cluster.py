"""A recipe on a Ray cluster: the same answer as here, also where a machine dies in training."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

pytest.importorskip("torch")
pytest.importorskip("ray")

RECIPE = """
phantom: {people: 3, test_people: 1, size: 256}
split: {folds: 2}
seed: 3
models:
  small: {family: smp, config: laptop, changes: {epochs: 6, size: [64, 64], workers: 0}}
  former: {family: segformer, config: laptop, changes: {epochs: 6, size: [64, 64], workers: 0}}
fusion: {refine: none}
"""
# A head and three further nodes, one of which dies when all of them train.
NODES = """
import sys
import threading
import time
from pathlib import Path
from ray.cluster_utils import Cluster
from zoo.cli import main

def main_on_cluster(recipe, out):
    small = {"num_cpus": 1, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=small)
    others = [nodes.add_node(num_cpus=1) for _ in range(3)]

    def kill():
        while len(list(Path(out).glob("runs/*/fold-*/checkpoints/*"))) < 4:
            time.sleep(0.2)
        nodes.remove_node(others[0], allow_graceful=False)
        print("KILLED", flush=True)

    threading.Thread(target=kill, daemon=True).start()
    try:
        main(["run", recipe, "--out", out, "--on", nodes.address])
    finally:
        nodes.shutdown()

main_on_cluster(*sys.argv[1:])
"""


@pytest.mark.timeout(1800)
def test_a_node_that_dies_changes_nothing(tmp_path, of_our_own):
    recipe = tmp_path / "toy.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")
    here, there = tmp_path / "here", tmp_path / "there"
    words = ["run", recipe, "--out", here]
    alone = [sys.executable, "-m", "zoo", *map(str, words)]
    subprocess.run(alone, cwd=tmp_path, check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, "-c", NODES, str(recipe), str(there)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    if "start" in done.stderr and "timed out" in done.stderr.casefold():
        pytest.skip("Ray does not start on a machine as busy as this one")
    assert done.returncode == 0, done.stderr
    assert "KILLED" in done.stdout
    for name in ("submission.csv", "fusion.yaml"):
        assert (there / name).read_bytes() == (here / name).read_bytes()
