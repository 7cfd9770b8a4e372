"""What the fuse command writes: the same bytes, wherever and in whatever pieces it works."""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
from clusters import run_on_nodes

from fusion.sources import submission
from zoo.results import chunks


def test_stores_and_submissions_mix_at_will(stores, files, fused, voted, tmp_path):
    given = stores, files, [stores[0], *files[1:]]
    for sources in given:
        assert fused(sources, tmp_path / "out.csv") == voted
    assert len(voted.splitlines()) == 1 + 6 * 9


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mean", "vote", "max", "staple", "hybrid"])
def test_the_order_of_the_sources_does_not_change_a_byte(
    zoo, stores, files, fused, work, toys, tmp_path, method
):
    # Two, so that each vote of them may be a tie.
    for pair in (stores[:2], files[:2], [stores[0], files[1]]):
        data = ("--data", work / "data", "--labels", toys.labels_file)
        given = [fused(order, tmp_path / "out.csv", *data, method=method)
                 for order in (pair, pair[::-1])]  # fmt: skip
        assert given[0] == given[1]
    written = []
    for order in (stores, stores[::-1]):
        out = tmp_path / "store"
        zoo("fuse", *order, "--out", out, "--method", method, "--format", "store")
        written.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert written[0] == written[1]


def test_rows_come_in_one_order_whoever_comes_first(files, fused, tmp_path):
    rows = list(submission.read(files[1]))
    turned = tmp_path / "b.csv"
    submission.write(turned, [*rows[-9:], *rows[:-9]])
    pair = [files[0], turned]
    expected = fused(pair, tmp_path / "out.csv")
    assert fused(pair[::-1], tmp_path / "out.csv") == expected


def test_submissions_are_joined_by_name(files, fused, voted, tmp_path):
    rows = list(submission.read(files[1]))
    (tmp_path / "other").mkdir()
    shuffled = tmp_path / "other" / "b.csv"
    submission.write(shuffled, [rows[i] for i in np.random.default_rng(0).permutation(len(rows))])
    assert fused([files[0], shuffled, files[2]], tmp_path / "out.csv") == voted


@pytest.mark.slow
def test_processes_do_not_change_a_byte(stores, files, fused, voted, tmp_path):
    mixed = [stores[0], *files[1:]]
    assert fused(mixed, tmp_path / "out.csv", "--jobs", 2) == voted


@pytest.mark.parametrize("size", [1, 4, 100])
@pytest.mark.slow
def test_chunks_do_not_change_a_byte(stores, fused, voted, tmp_path, monkeypatch, size):
    monkeypatch.setattr(chunks, "IMAGES", size)
    assert fused(stores, tmp_path / "out.csv") == voted


RAY = """
import sys
from zoo.results import chunks
from zoo.cli import main
chunks.IMAGES = 2
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def on_ray(stores, tmp_path_factory):
    """What was written on a cluster that the command started, and an empty home folder after it."""
    pytest.importorskip("ray")
    out, home = tmp_path_factory.mktemp("ray") / "out.csv", tmp_path_factory.mktemp("home")
    command = ["fuse", *stores, "--out", out, "--method", "vote"]
    bare = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", RAY, *map(str, command), "--on", "ray"],
            capture_output=True,
            text=True,
            check=False,
            env=bare | {"HOME": str(home)},
        )
        # It gives its own processes thirty seconds, which a busy machine may not have.
        if "Ray did not start" not in done.stderr:
            break
    else:
        pytest.skip("Ray does not start on a machine as busy as this one")
    assert done.returncode == 0, done.stderr
    return out.read_bytes(), home


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.slow
def test_a_cluster_does_not_change_a_byte(on_ray, voted):
    assert on_ray[0] == voted


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.slow
def test_a_cluster_leaves_nothing_in_the_home_folder(on_ray):
    assert list(on_ray[1].rglob("*")) == []


TWO_NODES = """
import sys
import warnings
from ray.cluster_utils import Cluster
from zoo.machine import cluster
from zoo.results import chunks
from zoo.cli import main
chunks.IMAGES = 2
nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
nodes.add_node(num_cpus=1)
if sys.argv[1] == "others":
    # What this process sees, and no other.
    cluster._sizes = lambda path: {"manifest.json": -1}
try:
    main([*sys.argv[2:], "--on", nodes.address])
finally:
    nodes.shutdown()
"""


@pytest.fixture
def on_two_nodes(stores, tmp_path, monkeypatch):
    """Return a function: fuse on a cluster of two nodes, with relative paths."""
    pytest.importorskip("ray")
    # A cluster of its own takes no other's token, and leaves none in the home folder.
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")

    def fuse(files):
        given = [os.path.relpath(store, tmp_path) for store in stores]
        command = ["fuse", *given, "--out", "out.csv", "--method", "vote"]
        return run_on_nodes(TWO_NODES, files, *command, cwd=tmp_path)

    return fuse


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.slow
def test_a_cluster_of_two_nodes_does_not_change_a_byte(on_two_nodes, voted, tmp_path):
    done = on_two_nodes("same")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.csv").read_bytes() == voted


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.slow
def test_a_node_that_sees_other_files_is_named(on_two_nodes, stores, tmp_path):
    done = on_two_nodes("others")
    assert done.returncode == 2, done.stderr
    assert re.search(
        rf"zoo: .*{stores[0].name}: expected the same files on every node .* on \S+ \(.+\): put",
        done.stderr,
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("on", ["ray:/x", "host", "host:port", "http://host:1", "a:1:2"])
def test_what_is_no_address_is_refused(zoo, stores, tmp_path, capsys, on):
    zoo("fuse", *stores, "--out", tmp_path / "a.csv", "--method", "vote", "--on", on, code=2)
    assert f"--on {on}: expected ray, auto, or a cluster's address" in capsys.readouterr().err


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nobody_listens_is_one_line(zoo, stores, tmp_path, capsys, scheme):
    pytest.importorskip("ray")
    with socket.socket() as taken:
        # Bound, and never listening: nobody else gets the port.
        taken.bind(("127.0.0.1", 0))
        on = f"{scheme}127.0.0.1:{taken.getsockname()[1]}"
        zoo("fuse", *stores, "--out", tmp_path / "a.csv", "--method", "vote", "--on", on, code=2)
    assert f"--on {on}: expected a Ray cluster that listens there" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_ray_a_hint_says_how_to_get_it(zoo, stores, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    out = tmp_path / "out.csv"
    zoo("fuse", *stores, "--out", out, "--method", "vote", "--on", "ray", code=2)
    assert "pip install 'maskzoo[cluster]'" in capsys.readouterr().err
    assert not out.exists()


KILLED = """
import os, signal, sys
from zoo.results import chunks
from zoo.cli import main
chunks.IMAGES = 2
save = chunks.ChunkFolder.save
def save_and_die(self, number, chunk):
    save(self, number, chunk)
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
chunks.ChunkFolder.save = save_and_die
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def remains(stores, tmp_path_factory):
    """What a vote leaves that is killed after two of its three chunks."""
    out = tmp_path_factory.mktemp("killed") / "out.csv"
    command = ["fuse", *stores, "--out", out, "--method", "vote"]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, command)], capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in out.parent.iterdir()] == ["out.csv.fusing"]
    return out.parent / "out.csv.fusing"


@pytest.fixture
def killed(remains, tmp_path):
    shutil.copytree(remains, tmp_path / remains.name)
    return tmp_path / "out.csv"


@pytest.fixture
def counted(monkeypatch):
    """Take down which chunks are fused in this process."""
    done = []
    fuse_chunk = chunks.fuse

    def count(rule, labels, chunk):
        done.append(chunk.number)
        return fuse_chunk(rule, labels, chunk)

    monkeypatch.setattr(chunks, "fuse", count)
    return done


@pytest.mark.parametrize("is_turned", [False, True])
@pytest.mark.slow
def test_a_killed_fusion_goes_on(stores, fused, killed, voted, counted, is_turned):
    # In whichever order its sources are given the second time.
    assert fused(stores[::-1] if is_turned else stores, killed) == voted
    assert counted == [2]


@pytest.mark.parametrize("change", ["rule", "source", "floor", "version"])
@pytest.mark.slow
def test_another_fusion_starts_anew(stores, files, fused, killed, counted, change, monkeypatch):
    given, options, method = stores, (), "vote"
    if change == "rule":
        method = "mean"
    elif change == "source":
        given = [*stores[:2], files[2]]
    elif change == "version":
        monkeypatch.setattr(chunks, "environment", lambda: {"versions": {"maskzoo": "9.9"}})
    else:
        options = ("--floor", 0.9)
    fused(given, killed, *options, method=method)
    assert counted == [0, 1, 2]


def test_somebody_s_folder_is_left_alone(zoo, stores, tmp_path, capsys):
    (tmp_path / "out.csv.fusing").mkdir()
    (tmp_path / "out.csv.fusing" / "photo.jpg").write_bytes(b"1")
    out = tmp_path / "out.csv"
    zoo("fuse", *stores, "--out", out, "--method", "vote", code=2)
    assert "expected an unfinished fusion" in capsys.readouterr().err
    assert (tmp_path / "out.csv.fusing" / "photo.jpg").exists()


KILLED_STORE = """
import os, signal, sys
from fusion.sources.store import StoreWriter
from zoo.results import chunks
from zoo.cli import main
chunks.IMAGES = 2
flush = StoreWriter._flush
def flush_and_die(self):
    flush(self)
    if self._done == 4:
        os.kill(os.getpid(), signal.SIGKILL)
StoreWriter._flush = flush_and_die
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_store_killed_half_way_goes_on(zoo, stores, tmp_path, counted):
    out = tmp_path / "store"
    options = ("--method", "mean", "--format", "store")
    zoo("fuse", *stores, "--out", tmp_path / "whole", *options)
    expected = {p.name: p.read_bytes() for p in (tmp_path / "whole").iterdir()}
    command = ["fuse", *stores, "--out", out, *options]
    done = subprocess.run(
        [sys.executable, "-c", KILLED_STORE, *map(str, command)], capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    counted.clear()
    zoo("fuse", *stores, "--out", out, *options)
    assert counted == [2]
    assert {p.name: p.read_bytes() for p in out.iterdir()} == expected
