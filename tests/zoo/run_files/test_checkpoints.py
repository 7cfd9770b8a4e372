from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from zoo.run_files import checkpoints
from zoo.run_files.checkpoints import (
    BEST,
    LAST,
    export_weights,
    find_weights,
    load_weights,
    read_about,
    read_weights,
    save_weights,
)


def _network(width: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width))


def test_weights_come_back(tmp_path: Path) -> None:
    first, second = _network(), _network()
    save_weights(first, tmp_path / "new" / "a.safetensors", {"epochs": "3"})
    load_weights(second, tmp_path / "new" / "a.safetensors")
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    assert read_about(tmp_path / "new" / "a.safetensors")["epochs"] == "3"
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.safetensors"]


def test_the_same_weights_are_the_same_file(tmp_path: Path) -> None:
    network, about = _network(3), {"epochs": "4", "stopped": 'no better\u00e4 "score"', "a_b": ""}
    files = set()
    for _ in range(12):
        save_weights(network, tmp_path / "w.safetensors", about)
        files.add((tmp_path / "w.safetensors").read_bytes())
    assert len(files) == 1
    assert read_about(tmp_path / "w.safetensors") == {"format": "pt", **about}


def test_channels_last_and_shared_weights_are_written(tmp_path: Path) -> None:
    network = nn.Sequential(_network(), nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    network[2].weight = network[1].weight
    network.to(memory_format=torch.channels_last)
    save_weights(network, tmp_path / "a.safetensors")
    load_weights(network, tmp_path / "a.safetensors")


def test_exported_weights_are_half_and_load_as_single(tmp_path: Path) -> None:
    network = _network()
    save_weights(network, tmp_path / "a.safetensors", {"epochs": "3"})
    export_weights(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    kinds = {k: v.dtype for k, v in read_weights(tmp_path / "b.safetensors").items()}
    assert kinds["0.weight"] == torch.float16
    assert kinds["1.num_batches_tracked"] == torch.int64
    expected = network.state_dict()["0.weight"].half().float()
    load_weights(network, tmp_path / "b.safetensors")
    assert network.state_dict()["0.weight"].dtype == torch.float32
    assert torch.equal(network.state_dict()["0.weight"], expected)
    assert read_about(tmp_path / "b.safetensors")["epochs"] == "3"


def test_export_refuses_what_float16_cannot_hold(tmp_path: Path) -> None:
    network = nn.Linear(1, 1)
    nn.init.constant_(network.weight, 1e6)
    save_weights(network, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="'weight' has values that float16 cannot hold"):
        export_weights(tmp_path / "a.safetensors", tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (_network(4), r"'0.weight': expected \(3, 1, 3, 3\), found \(4, 1, 3, 3\)"),
        (nn.Sequential(nn.Conv2d(1, 3, 3)), "'1.bias' is missing"),
        (nn.Sequential(*_network(), nn.Linear(1, 1)), "it has no '2.bias'"),
    ],
)
def test_weights_of_another_network(tmp_path: Path, other: nn.Module, message: str) -> None:
    save_weights(other, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=message):
        load_weights(_network(), tmp_path / "a.safetensors")


def test_a_file_that_is_cut_off(tmp_path: Path) -> None:
    save_weights(_network(), tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(data[:-5])
    with pytest.raises(ValueError, match="expected a whole safetensors file"):
        load_weights(_network(), tmp_path / "a.safetensors")
    assert read_about(tmp_path / "a.safetensors") == {}


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a safetensors file, found none"):
        read_weights(tmp_path / "a.safetensors")
    assert read_about(tmp_path / "a.safetensors") == {}


def test_best_weights_come_before_the_last(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train the run first"):
        find_weights(tmp_path)
    for name in (LAST, BEST):
        save_weights(_network(), tmp_path / name)
        assert find_weights(tmp_path) == tmp_path / name


BROKEN = {"NaN": math.nan, "infinite": -math.inf}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_that_are_no_numbers_are_refused(
    tmp_path: Path, name: str, dtype: torch.dtype
) -> None:
    weights = {"a": torch.ones(3), "b.c": torch.ones(4, dtype=dtype), "n": torch.tensor(7)}
    weights["b.c"][2] = BROKEN[name]
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"w\.safetensors: .* found 1 of 4 .* in 'b\.c'") as error:
        read_weights(tmp_path / "w.safetensors")
    assert "\n" not in str(error.value)


def test_weights_that_are_no_numbers_are_not_written(tmp_path: Path) -> None:
    path, network = tmp_path / "w.safetensors", _network()
    save_weights(network, path)
    before = path.read_bytes()
    network[1].running_var[0] = math.inf
    with pytest.raises(ValueError, match=r"'1\.running_var' holds NaN or infinite numbers"):
        save_weights(network, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("rows", "is_scored"),
    [("", False), ("1,nan\n", False), ("1,\n", False), ("1,0.5\n", True), ("1,\n2,0\n", True)],
)
def test_last_weights_stand_for_the_best_where_none_were_scored(
    tmp_path: Path, rows: str, is_scored: bool
) -> None:
    save_weights(_network(), tmp_path / LAST)
    (tmp_path / "metrics.csv").write_text(f"epoch,val_dice\n{rows}")
    if not is_scored:
        assert find_weights(tmp_path) == tmp_path / LAST
        return
    with pytest.raises(ValueError, match=r"best\.safetensors: expected the best weights"):
        find_weights(tmp_path)


def test_the_first_tensor_that_is_broken_is_named() -> None:
    good = {"a": torch.ones(2), "b": torch.tensor(1), "c": torch.zeros(0)}
    assert checkpoints.first_broken(good) is None
    assert checkpoints.first_broken({**good, "d": torch.tensor([math.nan])}) == "d"


def test_a_flipped_bit_in_weights_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    mixed = {"half": torch.rand(5).half(), "n": torch.tensor(7), "b": torch.rand(3).bfloat16()}
    checkpoints.write_weights({**_network().state_dict(), **mixed}, path, {"epochs": "3"})
    good, true = path.read_bytes(), read_weights(path)
    for pick in np.random.default_rng(5).choice(8 * len(good), 300, replace=False).tolist():
        bad = bytearray(good)
        bad[pick // 8] ^= 1 << pick % 8
        path.write_bytes(bad)
        try:
            found = read_weights(path)
        except ValueError:
            continue
        # What is left are texts beside the weights.
        assert found.keys() == true.keys(), pick
        assert all(torch.equal(found[name], true[name]) for name in true), pick


NO_WEIGHTS = {
    "empty": (b"", "found another: an empty file"),
    "words": (b"hello", "found another: "),
    "a newer pickle": (pickle.dumps([print], protocol=4), "found another: "),
    "another state": ({"state_dict": 5}, "expected name -> tensor"),
    "numbers": ({"a": 1}, "expected name -> tensor"),
}


@pytest.mark.parametrize(("content", "message"), NO_WEIGHTS.values(), ids=NO_WEIGHTS)
def test_a_pth_file_without_weights_is_one_line(content, message, tmp_path):
    path = tmp_path / "a.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=rf"a.pth: .*{message}") as error:
        checkpoints.read_weights(path)
    assert len(str(error.value).splitlines()) == 1


def test_a_pth_file_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"a.pth: expected a file of weights, found none"):
        checkpoints.read_weights(tmp_path / "a.pth")


# --- files as strangers hand them out

WEIGHTS = {"conv.weight": torch.arange(6.0), "norm.bias": torch.ones(2)}


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("name", ["a.pth", "a.ckpt"])
def test_weights_that_lie_deeper_in_a_file(key: str, name: str, tmp_path: Path) -> None:
    torch.save({"epoch": 3, key: WEIGHTS, "loss": torch.ones(1)}, tmp_path / name)
    found = read_weights(tmp_path / name)
    assert found.keys() == WEIGHTS.keys()
    assert torch.equal(found["conv.weight"], WEIGHTS["conv.weight"])


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n"
FALSE_FILES = {
    "a torch file cut off": ("a.pth", None, "the beginning of one; copy it again"),
    "a pointer": ("a.pth", POINTER, "a Git LFS pointer; fetch the file itself"),
    "another pointer": ("a.safetensors", POINTER, "a Git LFS pointer; fetch the file itself"),
    "a page": ("a.safetensors", b"<!DOCTYPE html><html></html>", "a web page; download"),
    "nothing": ("a.safetensors", b"", "an empty file"),
    "text": ("a.pth", b"hello", "nothing that torch reads"),
}


@pytest.mark.parametrize(("name", "content", "said"), FALSE_FILES.values(), ids=FALSE_FILES)
def test_a_file_of_something_else_is_called_what_it_is(
    name: str, content: bytes | None, said: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if content is None:
        torch.save(WEIGHTS, path)
        _cut(path)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=said) as error:
        read_weights(path)
    assert len(str(error.value).splitlines()) == 1
    assert str(error.value).startswith(f"{path}: expected ")


def test_a_file_with_the_other_ending(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "a.pth")
    torch.save(WEIGHTS, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"a\.pth: .* let its name end in \.safetensors"):
        read_weights(tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.safetensors: .* let its name end in \.pth"):
        read_weights(tmp_path / "a.safetensors")


@pytest.mark.parametrize("is_zip", [True, False])
def test_what_a_pickle_would_run_is_said_and_not_run(is_zip: bool, tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> Any:
            return (tmp_path.joinpath("ran").touch, ())

    path = tmp_path / "a.pth"
    if is_zip:
        torch.save({"a": Runs()}, path)
    else:
        path.write_bytes(pickle.dumps(Runs()))
    with pytest.raises(ValueError, match=r"a pickle .* which is not run; ask for weights") as error:
        read_weights(path)
    # Torch's own text tells how to run it all the same.
    assert "weights_only" not in str(error.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("start", ["module.", "model.", "encoder.", "_orig_mod.", "net.module."])
def test_what_stands_before_all_names_is_taken_away(start: str) -> None:
    found = {start + k: v for k, v in WEIGHTS.items()}
    own = checkpoints.strip_prefix(found, WEIGHTS, Path("a.pth"))
    assert own.keys() == WEIGHTS.keys()
    # A part of a network, and what else stands below the same beginning.
    further = {"head.weight": torch.ones(1), start + "fc.bias": torch.ones(1)}
    own = checkpoints.strip_prefix(found | further, WEIGHTS, Path("a.pth"))
    assert own.keys() == {*WEIGHTS, "fc.bias"}


def test_names_that_are_right_or_lack_something_stay() -> None:
    for found in (
        WEIGHTS,
        WEIGHTS | {"module.conv.weight": torch.ones(1)},
        {"module.conv.weight": torch.ones(1)},
        {"b.conv.weight": torch.ones(1), "a.norm.bias": torch.ones(1)},
    ):
        assert checkpoints.strip_prefix(found, WEIGHTS, Path("a.pth")).keys() == found.keys()


def test_two_networks_in_a_file() -> None:
    found = {s + k: v for s in ("teacher.", "student.") for k, v in WEIGHTS.items()}
    with pytest.raises(ValueError, match=r"a\.pth: .* found 2, below 'teacher\.' and 'student\.'"):
        checkpoints.strip_prefix(found, WEIGHTS, Path("a.pth"))


def test_a_start_is_the_whole_network(tmp_path: Path) -> None:
    network, path = _network(), tmp_path / "a.pth"
    theirs = {f"module.{k}": v for k, v in _network().state_dict().items()}
    torch.save(theirs, path)
    checkpoints.load_initial(network, path)
    assert torch.equal(network.state_dict()["0.weight"], theirs["module.0.weight"])
    torch.save(theirs | {"head.weight": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=r"weights of another network: '0\.bias' is missing"):
        checkpoints.load_initial(network, path)
    # What a run has learned is read by its own names alone.
    torch.save(theirs, path)
    with pytest.raises(ValueError, match="weights of another network"):
        load_weights(network, path)
