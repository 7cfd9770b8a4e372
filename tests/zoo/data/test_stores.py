from __future__ import annotations

import multiprocessing
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import converters
from converters.files.atomic import MARK, workplace
from converters.formats.hf import dataset as hf_dataset
from converters.types import LabelSpace
from zoo.augmentation.pipeline import Augmentation
from zoo.data.cases import Cases
from zoo.data.items import HuggingFaceItems, Item, SampleItems
from zoo.data.stores import DiskStore, Form, Made, open_store
from zoo.data.training_set import EpochSampler, TrainingSet, training_loader

FORMS = [Form((48, 32)), Form((48, 32), "shares", 9), Form((48, 32), "own"), Form((96, 64))]
STEPS = [
    {"name": "Affine", "rotate": [-30, 30], "p": 1.0},
    {"name": "CutMix", "p": 0.5},
]


class Counted(SampleItems):
    """Knows which samples were decoded."""

    def __init__(self, samples: Any, labels: LabelSpace) -> None:
        super().__init__(samples, labels)
        self.decoded: list[int] = []

    def __getitem__(self, index: int) -> Item:
        self.decoded.append(index)
        return super().__getitem__(index)


def _disk(toys: Any, folder: Path, form: Form = FORMS[0]) -> tuple[Counted, DiskStore]:
    items = Counted(toys.samples, toys.labels)
    return items, DiskStore(Made(items, form), folder)


def _pixels(kept: Any) -> tuple[str, bytes, bytes]:
    return kept.key, kept.image.tobytes(), kept.mask.planes().tobytes()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cache", ["memory", "disk"])
@pytest.mark.slow
def test_what_is_kept_is_what_is_made(toys: Any, tmp_path: Path, cache: Any, form: Form) -> None:
    items = SampleItems(toys.samples, toys.labels)
    plain, store = open_store(items, form, "none"), open_store(items, form, cache, tmp_path)
    assert len(store) == 6
    for _ in range(2):
        assert [_pixels(store[i]) for i in range(6)] == [_pixels(plain[i]) for i in range(6)]


def test_files_are_used_by_later_runs(toys: Any, tmp_path: Path) -> None:
    items, store = _disk(toys, tmp_path)
    first = [_pixels(store[i]) for i in range(6)]
    later, again = _disk(toys, tmp_path)
    assert [_pixels(again[i]) for i in range(6)] == first
    assert (sorted(items.decoded), later.decoded) == ([0, 1, 2, 3, 4, 5], [])


def test_a_run_that_was_killed_goes_on_with_what_there_is(toys: Any, tmp_path: Path) -> None:
    _, store = _disk(toys, tmp_path)
    store[1], store[4]
    items, again = _disk(toys, tmp_path)
    for i in range(6):
        again[i]
    assert items.decoded == [0, 2, 3, 5]


def _touch(toys: Any, folder: Path) -> Any:
    sample = toys.samples[0]
    path = folder / "other.png"
    cv2.imwrite(str(path), 255 - cv2.imread(str(sample.image), cv2.IMREAD_GRAYSCALE))
    os.utime(path, ns=(1, sample.image.stat().st_mtime_ns))
    return replace(sample, image=path)


def _move_a_point(toys: Any, folder: Path) -> Any:
    first, *rest = toys.samples[0].instances
    moved = replace(first, geometry=first.geometry.buffer(2))
    return replace(toys.samples[0], instances=(moved, *rest))


def _rename(toys: Any, folder: Path) -> Any:
    first, second, *rest = toys.samples[0].instances
    swapped = replace(first, label=second.label), replace(second, label=first.label)
    return replace(toys.samples[0], instances=(*swapped, *rest))


@pytest.mark.parametrize("change", [_touch, _move_a_point, _rename])
def test_what_has_changed_is_made_anew(toys: Any, tmp_path: Path, change: Any) -> None:
    _, store = _disk(toys, tmp_path)
    before = _pixels(store[0])
    items = Counted([change(toys, tmp_path)], toys.labels)
    after = _pixels(DiskStore(Made(items, FORMS[0]), tmp_path)[0])
    assert items.decoded == [0]
    assert after != before


def test_an_image_that_was_written_anew_is_read_anew(toys: Any, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(toys.samples[0].image.read_bytes())
    items = Counted([replace(toys.samples[0], image=path)], toys.labels)
    store = DiskStore(Made(items, FORMS[0]), tmp_path / "cache")
    before = _pixels(store[0])
    path.write_bytes(toys.samples[1].image.read_bytes())
    os.utime(path, ns=(1, 1))
    assert _pixels(store[0])[1] != before[1]


def test_forms_and_classes_have_their_own_files(toys: Any, tmp_path: Path) -> None:
    turned = LabelSpace("turned", toys.labels.names[::-1])
    digests = [Made(SampleItems(toys.samples, toys.labels), form).digest(0) for form in FORMS]
    digests.append(Made(SampleItems(toys.samples, turned), FORMS[0]).digest(0))
    assert len(set(digests)) == 5


@pytest.mark.parametrize("left", [b"", b"half", None], ids=["empty", "other", "cut off"])
def test_a_broken_file_is_made_anew(toys: Any, tmp_path: Path, left: bytes | None) -> None:
    _, store = _disk(toys, tmp_path)
    expected = _pixels(store[2])
    (path,) = tmp_path.glob("*.npy")
    path.write_bytes(path.read_bytes()[:900] if left is None else left)
    items, again = _disk(toys, tmp_path)
    assert _pixels(again[2]) == expected
    assert items.decoded == [2]


def test_other_numbers_in_a_file_are_no_sample(toys: Any, tmp_path: Path) -> None:
    _, store = _disk(toys, tmp_path)
    expected = _pixels(store[2])
    (path,) = tmp_path.glob("*.npy")
    for content in (np.load(path)[:-1], np.load(path)[:20], np.zeros(9), np.zeros((4, 4))):
        np.save(path, content)
        assert _pixels(store[2]) == expected


def test_only_our_own_unfinished_files_go(toys: Any, tmp_path: Path) -> None:
    (tmp_path / "somebody.partial").write_bytes(b"")
    left = tmp_path / ".0f.npy.abcdefgh.partial"
    left.mkdir()
    (left / MARK).touch()
    (left / "0f.npy").write_bytes(b"half")
    with workplace(tmp_path / "1e.npy") as running:
        _disk(toys, tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {"somebody.partial", running.name}


def test_a_file_is_no_folder(toys: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="expected a place for the samples' files"):
        _disk(toys, tmp_path / "file")


def test_the_disk_wants_a_folder(toys: Any) -> None:
    with pytest.raises(ValueError, match="cache: 'disk': expected a folder"):
        open_store(SampleItems(toys.samples, toys.labels), FORMS[0], "disk")


def test_a_full_disk_is_said(toys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, store = _disk(toys, tmp_path)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(ValueError, match="No space left on device; choose another cache_dir"):
        store[0]
    assert list(tmp_path.iterdir()) == []


def _fill(store: DiskStore, numbers: list[int]) -> None:
    for number in numbers:
        store[number]


def test_processes_fill_a_folder_together(toys: Any, tmp_path: Path) -> None:
    _, store = _disk(toys, tmp_path)
    fork = multiprocessing.get_context("fork")
    orders = [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]]
    running = [fork.Process(target=_fill, args=(store, order)) for order in orders]
    for process in running:
        process.start()
    for process in running:
        process.join()
    assert [process.exitcode for process in running] == [0, 0]
    items, again = _disk(toys, tmp_path)
    plain = Made(items, FORMS[0])
    found = [_pixels(again[i]) for i in range(6)]
    assert (items.decoded, len(list(tmp_path.iterdir()))) == ([], 6)
    assert found == [_pixels(plain[i]) for i in range(6)]


def test_rows_of_a_table_are_known_by_their_bytes(toys: Any, tmp_path: Path) -> None:
    for name, samples in (("a", toys.samples), ("b", toys.samples[::-1])):
        converters.write(samples, tmp_path / name, format="segformer", labels=toys.labels)
    opened = [hf_dataset.open_split(tmp_path / name, "train") for name in "ab"]
    a, b = (HuggingFaceItems(rows, toys.labels) for rows in opened)
    stamps = {a.stamp(i) for i in range(6)}
    assert stamps == {b.stamp(i) for i in range(6)}
    assert len(stamps) == 6


def test_an_image_that_is_gone(toys: Any, tmp_path: Path) -> None:
    gone = replace(toys.samples[0], image=tmp_path / "gone.png")
    with pytest.raises(ValueError, match=r"gone\.png: expected an image: No such file"):
        SampleItems([gone], toys.labels).stamp(0)


def _set(toys: Any, steps: Any, soft: bool = False, **further: Any) -> TrainingSet:
    augment = Augmentation(steps, toys.labels, soft)
    return TrainingSet(SampleItems(toys.samples, toys.labels), (48, 32), augment, 7, **further)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("steps", [[], STEPS], ids=["plain", "augmented"])
def test_training_samples_do_not_depend_on_the_cache(
    toys: Any, tmp_path: Path, steps: Any, soft: bool
) -> None:
    kept, stored = _set(toys, steps, soft), _set(toys, steps, soft, cache_dir=tmp_path)
    for place in ((0, 0), (0, 5), (1, 0)) * 2:
        for a, b in zip(kept[place], stored[place], strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.slow
def test_workers_make_the_same_batches_of_files(toys: Any, tmp_path: Path, workers: int) -> None:
    data, sampler = _set(toys, STEPS, cache_dir=tmp_path), EpochSampler(6, seed=3)
    masks = torch.cat([b[1] for b in training_loader(data, sampler, 2, workers, False)])
    assert torch.equal(masks, torch.stack([_set(toys, STEPS)[place][1] for place in sampler]))


@pytest.mark.parametrize("form", ["none", "memory", "disk"])
def test_cases_do_not_depend_on_the_cache(toys: Any, tmp_path: Path, form: str) -> None:
    items = SampleItems(toys.samples, toys.labels)
    folder = tmp_path if form == "disk" else None
    cases = Cases(items, (32, 32), toys.labels, form == "memory", cache_dir=folder)
    for _ in range(2):
        found = list(cases.read([4, 0]))
        assert [case.key for case in found] == [toys.samples[4].key, toys.samples[0].key]
        assert {case.image.shape for case in found} == {(32, 32)}
        for case, number in zip(found, (4, 0), strict=True):
            planes = np.stack([case.truth[name].full((96, 64)) for name in toys.labels.names], -1)
            packed = np.packbits(planes, axis=-1, bitorder="little")
            assert np.array_equal(packed, items[number].packed)


def _private_bytes(store: Any, results: Any) -> None:
    """Look at every byte of a store, and say by how much this process has grown of its own."""

    def private() -> int:
        rollup = Path("/proc/self/smaps_rollup").read_text().splitlines()
        lines = dict(line.split(":", 1) for line in rollup[1:])
        return 1024 * sum(int(lines[f"Private_{k}"].split()[0]) for k in ("Clean", "Dirty"))

    before = private()
    total = sum(int(store[i].image.sum()) + store[i].mask.nbytes for i in range(len(store)))
    results.put((total, private() - before))


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux")
@pytest.mark.parametrize("cache", ["memory", "disk"])
@pytest.mark.slow
def test_processes_share_what_is_kept(toys: Any, tmp_path: Path, cache: Any) -> None:
    items = SampleItems(toys.samples, toys.labels)
    store = open_store(items, Form((2048, 2048)), cache, tmp_path)
    total = sum(int(store[i].image.sum()) + store[i].mask.nbytes for i in range(6))
    fork = multiprocessing.get_context("fork")
    results: Any = fork.Queue()
    # Two at a time: pages that one process alone maps count as its own.
    running = [fork.Process(target=_private_bytes, args=(store, results)) for _ in range(2)]
    for process in running:
        process.start()
    found = [results.get(timeout=60) for _ in running]
    for process in running:
        process.join()
    assert {amount for amount, _ in found} == {total}
    # The images alone are 25 MB.
    assert max(grown for _, grown in found) < 6e6
