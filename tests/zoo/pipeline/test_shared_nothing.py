"""A recipe on machines that share no disk: the same answer as here, also where one dies."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.long]

pytest.importorskip("torch")
pytest.importorskip("ray")

RECIPE = """
data: data
split: {folds: 2}
seed: 3
models:
  small:
    family: smp
    config: laptop
    changes: {epochs: 120, size: [64, 64], workers: 0, validate_every: 1}
fusion: {refine: none}
report: false
"""
ZOO = [sys.executable, "-m", "zoo"]
RAY = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
# Its own mounts, processes and name: what is hidden is hidden from all that it starts.
APART = ["unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc", "sh"]
ON = re.compile(r"zoo: note: on (node-\d): (\d+) files brought, [\d.]+ MB(; goes on with)?")


def can_be_apart():
    try:
        return subprocess.run([*APART, "-c", "hostname x"], capture_output=True).returncode == 0
    except OSError:
        return False


def start_node(number, address, hidden, folder):
    """Start a machine that does not see some folders, under a name of its own."""
    # Ray's folder too: nodes that begin at once in the same one take each other's sockets.
    lines = [f"hostname node-{number}"]
    lines += [f"mount -t tmpfs none '{path}'" for path in (os.environ["RAY_TMPDIR"], *hidden)]
    ports = ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"]
    ray = [*RAY, f"--address={address}", "--num-cpus=1", "--object-store-memory=80000000", *ports]
    lines.append("exec " + " ".join([*ray, "--node-ip-address=127.0.0.1"]))
    own = {**os.environ, "MASKZOO_NODE": str(folder)}
    return subprocess.Popen(
        [*APART, "-ec", "\n".join(lines)],
        env=own,
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.fixture
def alone(request):
    """These clusters want the machine for themselves: beside other tests one has hung."""
    if not request.config.getoption("--clusters"):
        pytest.skip("pytest --clusters runs it")


@pytest.fixture
def work(tmp_path, of_our_own):
    """Return a folder with a data set and a recipe in another one, which no node will see."""
    head = tmp_path / "head"
    head.mkdir()
    (head / "toy.yaml").write_text(RECIPE, encoding="utf-8")
    sizes = ("--people", "3", "--test-people", "1", "--size", "256")
    zoo_here("phantom", "data", *sizes, cwd=head)
    return tmp_path


@pytest.fixture
def answered(work):
    """Return the folder of this machine's own answer."""
    zoo_here("run", "toy.yaml", "--out", "../here", cwd=work / "head")
    return work / "here"


def zoo_here(*words, cwd):
    done = subprocess.run([*ZOO, *words], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def cluster(work):
    """Start a head that takes no work, and return what starts nodes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ports = ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"]
    head = subprocess.Popen(
        [
            *(*RAY, "--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false"),
            *(*ports, "--object-store-memory=80000000", "--node-ip-address=127.0.0.1"),
        ],
        cwd=work,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    nodes = {}

    def start(count):
        folders = {n: work / f"node-{n}" for n in range(count)}
        for folder in folders.values():
            folder.mkdir()
        for n, folder in folders.items():
            others = [path for m, path in folders.items() if m != n]
            hidden = [work / "head", *work.glob("here"), *others]
            nodes[f"node-{n}"] = start_node(n, f"127.0.0.1:{port}", hidden, folder)
        return f"127.0.0.1:{port}", nodes

    wait_for(lambda: can_connect(port), 120)
    yield start
    for process in [*nodes.values()]:
        process.kill()
        process.wait()
    head.terminate()
    head.wait(60)


def can_connect(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def wait_for(what, seconds):
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)
    return found


def count_nodes(address, cwd):
    code = f"import ray; ray.init('{address}'); print(sum(n['Alive'] for n in ray.nodes()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) if done.returncode == 0 else 0


def begun_training(look):
    """Return the node of a training that has been put down in part, its step, and its scores."""
    for state in look().glob("working/*/train-small-*/state.json"):
        try:
            found = json.loads(state.read_text(encoding="utf-8"))
            said = (state.parent / "log").read_text(encoding="utf-8")
            put = {Path(path).name: of for path, (_, of) in found["files"].items()}
            of = put["metrics.csv"]
            scores = (state.parent / "blobs" / of[:2] / of).read_text(encoding="utf-8")
        except (OSError, ValueError, KeyError):
            # It is not there yet, or is being replaced.
            continue
        if not found["ended"] and "last.ckpt" in put and len(scores.splitlines()) > 2:
            return ON.findall(said)[-1][0], state.parent.name.rpartition("-")[0], scores
    return None


def copy_bucket(url, folder):
    """Return a folder with what lies in a bucket now; what goes meanwhile is left out."""
    import s3fs

    files = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    root = url.removeprefix("s3://")
    for path in files.find(root):
        target = folder / path.removeprefix(f"{root}/")
        target.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            files.get_file(path, str(target))
    return folder


@pytest.mark.timeout(1800)
@pytest.mark.skipif(not can_be_apart(), reason="needs namespaces of mounts (Linux, as root)")
@pytest.mark.parametrize(("kind", "count"), [("sftp", 2), ("s3", 2), ("folder", 4)])
def test_a_machine_that_dies_loses_one_step(kind, count, alone, answered, work, cluster, request):
    if kind == "s3":
        url = request.getfixturevalue("s3_server")
        look = partial(copy_bucket, url, work / "bucket")
    else:
        here = work / "place"
        url, place = (f"file://{here}", here)
        if kind == "sftp":
            url, place = request.getfixturevalue("ssh_server")
        look = partial(Path, place)
    address, nodes = cluster(count)
    wait_for(lambda: count_nodes(address, work) == count + 1, 300)
    command = ["run", "toy.yaml", "--on", address, "--through", "env:PLACE"]
    process = subprocess.Popen(
        [*ZOO, *command],
        cwd=work / "head",
        env={**os.environ, "PLACE": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    found = wait_for(lambda: process.poll() is not None or begun_training(look), 900)
    assert found is not True, process.communicate()[0]
    node, step, scores = found
    nodes[node].kill()
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 0, said
    out, here = work / "head" / "toy-run", answered
    for name in ("submission.csv", "fusion.yaml", "split.json"):
        assert (out / name).read_bytes() == (here / name).read_bytes()
    for path in here.glob("runs/*/*/checkpoints/*.safetensors"):
        assert (out / path.relative_to(here)).read_bytes() == path.read_bytes()
    log = (out / "logs" / f"{step}.log").read_text(encoding="utf-8")
    run = out / "runs" / "small" / f"fold-{step[-1]}"
    _check_it_continued(log, node, scores, (run / "metrics.csv").read_text(encoding="utf-8"))
    _check_moves(out, look(), work)


def _check_it_continued(log, dead, before, after):
    """The second start goes on after the epochs of the first, whose seconds nobody takes again."""
    first, second = ON.findall(log)
    assert first[0] == dead != second[0]
    assert second[2]
    # The last one may lie after the checkpoint.
    kept = before.splitlines()[:-1]
    assert "seconds" in kept[0]
    assert after.splitlines()[: len(kept)] == kept


def _check_moves(out, place, work):
    """The data set was brought to each node once, and nothing is left at the place."""
    images = len(list((work / "head" / "data").rglob("*.png")))
    assert images
    whole = {}
    for log in out.glob("logs/*.log"):
        for node, files, _ in ON.findall(log.read_text(encoding="utf-8")):
            whole[node] = whole.get(node, 0) + (int(files) >= images)
    assert all(times == 1 for times in whole.values())
    assert [path for path in place.rglob("*") if path.is_file()] == []
    for folder in work.glob("node-*/tasks"):
        # But what the dead one left.
        assert len(list(folder.iterdir())) <= 1
    assert json.loads((out / "transfers.json").read_text(encoding="utf-8"))["waiting"] == {}


@pytest.mark.timeout(600)
@pytest.mark.skipif(not can_be_apart(), reason="needs namespaces of mounts (Linux, as root)")
def test_a_node_that_does_not_reach_the_place_is_told(work, cluster):
    address, _ = cluster(1)
    wait_for(lambda: count_nodes(address, work) == 2, 300)
    # The folder that the node does not see.
    words = ["run", "toy.yaml", "--on", address, "--through", f"file://{work}/head/place"]
    done = subprocess.run([*ZOO, *words], cwd=work / "head", capture_output=True, text=True)
    assert done.returncode != 0
    assert "--through: expected a place that every node of the cluster reaches" in done.stderr
