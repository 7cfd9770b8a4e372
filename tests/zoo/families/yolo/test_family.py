import contextlib
import csv
import dataclasses
import os
import pickle
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from shapely.geometry import Polygon

pytest.importorskip("ultralytics")

import torch
from safetensors.torch import load_file, save_file

import configs
import converters
from converters.masks import rasterize
from converters.splits.split import make_split
from converters.types import Instance, LabelSpace, Sample
from zoo.config import load_config
from zoo.contract import DivergedError, PredictOptions, TrainJob
from zoo.families import load_family
from zoo.families.yolo import family as yolo
from zoo.families.yolo.config import YoloConfig, ultralytics_settings
from zoo.families.yolo.network import build_network, load_initial, network_description
from zoo.families.yolo.trainer import OfflineSegmentation, covered_cells, read_checkpoint
from zoo.inference.detections import (
    AT_MOST,
    SAME_IOU,
    DetectionSetting,
    Letterbox,
    all_detections,
    best_detections,
    soft_mask_of,
    soft_masks,
    to_prediction,
)
from zoo.run_files.checkpoints import BEST, LAST, RESUME, load_weights, read_weights

# isort: split
from ultralytics.data.utils import polygon2mask
from ultralytics.models.yolo.segment import SegmentationPredictor
from ultralytics.utils import nms, ops, torch_utils

pytestmark = pytest.mark.slow

CLASSES = ("disc", "a-block", "bar_2")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("labels") / "shapes.yaml"
    path.write_text(yaml.safe_dump({"name": "shapes", "names": list(CLASSES)}))
    return path


def tiny(labels: Path, **changes: object) -> YoloConfig:
    small = {"depth": 0.33, "width": 0.125, "max_channels": 128, "imgsz": 64}
    quick = {"epochs": 2, "batch": 2, "workers": 0, "device": "cpu", "conf": 0.0}
    return YoloConfig(labels=str(labels), **{**small, **quick, **changes})


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Six small radiographs, portrait, with overlapping shapes and one at the border."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    found = []
    for number in range(6):
        image = rng.integers(0, 40, (90, 70), dtype=np.uint8)
        left, top = rng.integers(0, 20, 2).tolist()
        outlines = {
            "disc": cv2.ellipse2Poly((35, 45), (14, 18), 0, 0, 360, 20),
            "a-block": np.array([[left, top], [left + 25, top], [left + 25, top + 30]]),
            "bar_2": np.array([[40, 60], [69, 60], [69, 89], [40, 89]]),
        }
        for points in outlines.values():
            cv2.fillPoly(image, [points.astype(np.int32)], 160)
        path = folder / f"image{number}_R.png"
        cv2.imwrite(str(path), image)
        instances = tuple(Instance(n, Polygon(p)) for n, p in outlines.items())
        found.append(Sample(f"ID{number}/{path.stem}", path, (90, 70), instances, f"ID{number}"))
    return found


def job_of(samples: list[Sample], labels: Path, out: Path, **changes: object) -> TrainJob:
    out.mkdir(exist_ok=True)
    split = make_split(samples, folds=3)
    held_out = set(split.val(0))
    return TrainJob(
        out=out,
        labels=LabelSpace.load(str(labels)),
        train=[s for s in samples if s.key not in held_out],
        val=[s for s in samples if s.key in held_out],
        data=out,
        data_format="handbone",
        split=split,
        **changes,
    )


@pytest.fixture(scope="module")
def finished(
    samples: list[Sample], labels: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[tuple[int, int, str]]]:
    """A run of two epochs, without a network, and what its progress bar was told."""
    out = tmp_path_factory.mktemp("run")
    calls: list[tuple[int, int, str]] = []
    with offline():
        yolo.train(
            tiny(labels),
            job_of(samples, labels, out, progress=lambda *call: calls.append(call)),
        )
    return out, calls


@contextlib.contextmanager
def offline():
    def refuse(*_: object) -> None:
        raise AssertionError("something reached for a network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield


def random_network(config: YoloConfig, classes: int) -> torch.nn.Module:
    """A network whose random masks have outlines, and whose classes differ."""
    torch.manual_seed(1)
    network = build_network(config, classes)
    head = network.model[-1]
    for branch, spread in ((head.cv3, 1.0), (head.cv4, 1.0)):
        for level in branch:
            torch.nn.init.normal_(level[-1].weight, std=spread)
    return network.eval()


def distance_to_outline(mask: np.ndarray) -> np.ndarray:
    outline = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    return cv2.distanceTransform(1 - outline, cv2.DIST_L2, 5)


SIZES = [(64, 64), (128, 128), (200, 200), (200, 131), (131, 200), (40, 100), (97, 33), (301, 300)]


@pytest.mark.parametrize("size_hw", SIZES)
@pytest.mark.parametrize("side", [16, 32])
def test_soft_masks_at_one_half_are_ultralytics_native_masks(size_hw: tuple[int, int], side: int):
    torch.manual_seed(side + size_hw[0])
    prototypes = torch.nn.functional.interpolate(
        torch.randn(1, 4, side // 4, side // 4), size=(side, side), mode="bicubic"
    )[0]
    coefficients = torch.randn(6, 4) * 4
    corners = torch.rand(6, 2) * 2 * side
    boxes = torch.cat([corners, corners + 8 + torch.rand(6, 2) * 2 * side], dim=1)
    frame = Letterbox(size_hw, 4 * side)
    in_image = ops.scale_boxes((4 * side, 4 * side), boxes.clone(), size_hw)
    native = ops.process_mask_native(prototypes, coefficients, in_image, size_hw).numpy()
    ours = np.array([frame.to_image(box.numpy()) for box in boxes])
    np.testing.assert_allclose(ours, in_image.numpy(), atol=1e-3)
    planes = (coefficients @ prototypes.flatten(1)).view(-1, side, side).numpy()
    for box, plane, expected in zip(in_image.tolist(), planes, native, strict=True):
        at_pixels = soft_mask_of(tuple(box), plane, frame, raster=100)
        coarse = soft_mask_of(tuple(box), plane, frame, raster=4)
        if at_pixels is None or coarse is None:
            assert not expected.any()
            continue
        assert (at_pixels.binary(size_hw).full(size_hw) != expected).sum() <= 1
        different = coarse.binary(size_hw).full(size_hw) != expected
        assert not different.any() or distance_to_outline(expected)[different].max() <= 1


@pytest.mark.parametrize("size_hw", [(150, 110), (110, 150), (128, 128)])
def test_predictions_are_those_of_ultralytics_own_predictor(labels: Path, size_hw: tuple[int, int]):
    config = tiny(labels, imgsz=128)
    network = random_network(config, len(CLASSES))
    image = np.random.default_rng(3).integers(0, 255, (*size_hw, 3), dtype=np.uint8)
    settings = {"imgsz": 128, "rect": False, "retina_masks": True, "conf": 1e-6, "save": False}
    reference = SegmentationPredictor(overrides={**settings, "device": "cpu", "max_det": 3000})
    reference.setup_model(network, verbose=False)
    result = reference([image])[0]
    frame = Letterbox(size_hw, 128)
    predictor = yolo.Predictor(network, config, LabelSpace.load(str(labels)), CPU)
    outputs, prototypes = predictor.forward(frame.apply(image)[None])
    found = best_detections(outputs[0].numpy(), len(CLASSES), 1e-6, end_to_end=False)
    compared = 0
    for detection, mask in soft_masks(found, prototypes[0].numpy(), frame, raster=4):
        same = (result.boxes.cls == detection.label) & torch.isclose(
            result.boxes.conf, torch.tensor(detection.score), rtol=1e-4
        )
        if not same.any():
            continue
        number = int(same.nonzero()[0])
        expected = result.masks.data[number].numpy().astype(np.uint8)
        ours = mask.binary(size_hw).full(size_hw)
        assert (ours & expected).sum() / (ours | expected).sum() > 0.98
        compared += 1
    assert compared


def test_best_of_each_class_is_the_top_of_nms():
    torch.manual_seed(0)
    anchors, classes, weights = 200, 3, 8
    centre, size = torch.rand(2, anchors) * 100, torch.rand(2, anchors) * 40 + 2
    output = torch.cat([centre, size, torch.rand(classes, anchors), torch.randn(weights, anchors)])
    (reference,) = nms.non_max_suppression(output[None], 0.05, 0.7, multi_label=True, nc=classes)
    found = best_detections(output.numpy(), classes, 0.05, end_to_end=False)
    assert [d.label for d in found] == [0, 1, 2]
    for detection in found:
        top = reference[reference[:, 5] == detection.label][0]
        assert detection.score == pytest.approx(float(top[4]))
        np.testing.assert_allclose(detection.box_xyxy, top[:4], rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(detection.coefficients, top[6:])


@pytest.mark.parametrize(("anchors", "span"), [(200, 100), (60, 20), (900, 3000), (0, 1)])
def test_all_detections_are_those_of_nms(anchors, span):
    torch.manual_seed(anchors)
    classes, weights = 3, 8
    centre, size = torch.rand(2, anchors) * span, torch.rand(2, anchors) * 40 + 2
    output = torch.cat([centre, size, torch.rand(classes, anchors), torch.randn(weights, anchors)])
    (reference,) = nms.non_max_suppression(output[None], 0.05, SAME_IOU, nc=classes)
    found = all_detections(output.numpy(), classes, 0.05, end_to_end=False)
    assert len(found) == len(reference) <= AT_MOST
    for detection, row in zip(found, reference, strict=True):
        assert (detection.label, detection.score) == (int(row[5]), pytest.approx(float(row[4])))
        np.testing.assert_allclose(detection.box_xyxy, row[:4], rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(detection.coefficients, row[6:])


def test_all_of_an_end_to_end_head():
    rows = np.array(
        [[0, 0, 4, 4, 0.5, 2, 9], [1, 1, 5, 5, 0.7, 2, 8], [2, 2, 6, 6, 0.01, 0, 7.0]], np.float32
    )
    found = all_detections(rows, 3, 0.05, end_to_end=True)
    assert [(d.label, d.box_xyxy.tolist()) for d in found] == [(2, [1, 1, 5, 5]), (2, [0, 0, 4, 4])]
    assert [d.score for d in found] == pytest.approx([0.7, 0.5])


# Two discs that do not touch, and a block over the second.
SEEN = [(16, 16, 20, 20, 0, 0.9), (48, 32, 20, 24, 0, 0.6), (50, 38, 20, 10, 1, 0.8)]


@pytest.mark.parametrize(("once", "expected"), [(True, (1, 1)), (False, (2, 1))])
def test_objects_are_as_many_as_the_label_space_allows(labels: Path, once, expected):
    space = dataclasses.replace(LabelSpace.load(str(labels)), once=once)
    setting = DetectionSetting(64, conf=0.05, raster=4, margin_px=0, end_to_end=False)
    output = np.zeros((4 + len(CLASSES) + 1, len(SEEN) + 1), np.float32)
    for anchor, (*box, label, score) in enumerate([*SEEN, (16, 17, 20, 20, 0, 0.7)]):
        output[:4, anchor] = box
        output[4 + label, anchor] = score
        output[-1, anchor] = 1
    sample = Sample("a_1", Path("a_1.png"), (64, 96))
    prototypes = np.full((1, 16, 16), 9, np.float32)
    found = to_prediction(sample, output, prototypes, space, setting)
    assert tuple(len(found.masks[name]) for name in CLASSES[:2]) == expected
    scores = [score for score, _ in found.masks["disc"]]
    assert scores == pytest.approx([0.9, 0.6][: expected[0]])
    assert found.masks["disc"][0][1].box_xywh[:2] == (9, 0)


def test_best_of_an_end_to_end_head():
    rows = np.array(
        [[0, 0, 4, 4, 0.5, 2, 9], [1, 1, 5, 5, 0.7, 2, 8], [2, 2, 6, 6, 0.01, 0, 7.0]], np.float32
    )
    (found,) = best_detections(rows, 3, 0.05, end_to_end=True)
    assert (found.label, found.box_xyxy.tolist(), found.coefficients.tolist()) == (
        2,
        [1, 1, 5, 5],
        [8],
    )
    assert found.score == pytest.approx(0.7)


def test_a_box_outside_the_image_has_no_mask():
    frame = Letterbox((64, 20), 64)
    left_padding = np.array([0, 0, 10, 60], np.float32)
    box = frame.to_image(left_padding)
    assert soft_mask_of(box, np.ones((16, 16), np.float32), frame, raster=4) is None


def test_margin_reaches_beyond_the_box():
    frame = Letterbox((64, 64), 64)
    mask = soft_mask_of((10.2, 10.2, 20.2, 20.2), np.ones((16, 16), np.float32), frame, 4, 2.0)
    assert mask is not None
    assert mask.box_xywh == (9, 9, 14, 14)


@pytest.mark.parametrize("radius", [8, 13, 30])
@pytest.mark.parametrize(("image_px", "cell_px"), [(1, 1), (1, 2), (2, 1), (2, 2), (4, 1)])
def test_masks_to_learn_from_are_as_large_as_the_objects(radius: int, image_px: int, cell_px: int):
    rng = np.random.default_rng(radius)
    side = 256 // image_px // cell_px
    ours, theirs, truth = 0, 0, 0
    for _ in range(60):
        polygon = ellipse(rng, radius)
        truth += rasterize(polygon, (256, 256)).area
        # Augmentation leaves no outline on whole pixels.
        moved = np.array(polygon.exterior.coords)[:-1] + 0.5 + rng.uniform(-4, 4, 2)
        ring = moved / image_px
        ours += int(covered_cells(ring, (side, side), cell_px, image_px).sum())
        theirs += int(polygon2mask((side * cell_px,) * 2, [ring.reshape(-1)], 1, cell_px).sum())
    cell_area = (cell_px * image_px) ** 2
    assert ours * cell_area == pytest.approx(truth, rel=0.04)
    assert abs(ours * cell_area - truth) <= abs(theirs * cell_area - truth)


def ellipse(rng: np.random.Generator, radius: int) -> Polygon:
    centre, axes = rng.integers(100, 156, 2), rng.integers(radius * 0.7, radius * 1.3, 2)
    return Polygon(cv2.ellipse2Poly(centre.tolist(), axes.tolist(), 20, 0, 360, 15))


def test_masks_to_learn_from_may_leave_the_image():
    ring = np.array([[-20, -20], [6.4, -20], [6.4, 6.4], [-20, 6.4]])
    expected = np.zeros((8, 8), np.uint8)
    expected[:3, :3] = 1
    np.testing.assert_array_equal(covered_cells(ring, (8, 8), 2, 2), expected)
    assert not covered_cells(ring - 50, (8, 8), 2, 2).any()


def test_training_leaves_scores_and_weights(finished, labels: Path):
    out, calls = finished
    with (out / "metrics.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [row["step"] for row in rows] == ["2", "4"]
    assert set(CLASSES) <= set(rows[0])
    mean = np.mean([float(rows[1][name]) for name in CLASSES])
    assert float(rows[1]["val_dice"]) == pytest.approx(mean, abs=1e-6)
    assert [call[:2] for call in calls] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    network = build_network(tiny(labels), len(CLASSES))
    load_weights(network, out / BEST)
    load_weights(network, out / LAST)


def test_several_devices_share_ultralytics_batch(labels: Path, tmp_path: Path):
    config = tiny(labels, imgsz=2048, batch=2, nbs=8, devices=2, precision="32-true")
    passed = ultralytics_settings(config, CPU, tmp_path, ranks=2)
    expected = {"batch": 4, "nbs": 16, "imgsz": 2048, "amp": False, "device": "cpu"}
    assert {key: passed[key] for key in expected} == expected
    auto = tiny(labels, batch="auto", effective_batch=8, devices=2).with_steps_of(2)
    passed = ultralytics_settings(auto, CPU, tmp_path, ranks=2)
    assert (passed["batch"], passed["nbs"]) == (4, 16)


def test_no_pickle_is_left(finished):
    out, _ = finished
    assert not list(out.rglob("*.cache"))
    assert not list(out.rglob("*.pt"))
    assert read_checkpoint(out / RESUME)["finished"]


def test_a_finished_run_is_not_trained_again(finished, samples: list[Sample], labels: Path):
    out, _ = finished
    before = (out / LAST).stat().st_mtime_ns
    yolo.train(tiny(labels), job_of(samples, labels, out))
    assert (out / LAST).stat().st_mtime_ns == before


def test_predictions_are_in_the_images_frame(finished, samples: list[Sample], labels: Path):
    out, _ = finished
    with offline():
        found = list(yolo.predict(out, tiny(labels), samples, PredictOptions(device="cpu")))
    assert [p.key for p in found] == [s.key for s in samples]
    for prediction in found:
        assert prediction.kind == "instance"
        assert prediction.size_hw == (90, 70)
        for _, _, score, mask in prediction.rows():
            x, y, width, height = mask.box_xywh
            assert 0 <= score <= 1
            assert 0 <= x < x + width <= 70
            assert 0 <= y < y + height <= 90


def test_an_image_without_detections_is_an_empty_prediction(
    finished, samples: list[Sample], labels: Path
):
    out, _ = finished
    sure = tiny(labels, conf=0.999)
    found = list(yolo.predict(out, sure, samples[:1], PredictOptions(device="cpu")))
    assert len(found) == 1
    assert not found[0].masks


class KilledError(Exception):
    pass


def test_a_killed_run_ends_like_one_that_was_not(
    finished, samples: list[Sample], labels: Path, tmp_path: Path
):
    out, _ = finished

    def kill(done: int, total: int, note: str) -> None:
        if done == 3:
            raise KilledError

    job = job_of(samples, labels, tmp_path / "run", progress=kill)
    with pytest.raises(KilledError):
        yolo.train(tiny(labels), job)
    written = (job.out / "data" / "data.yaml").stat().st_mtime_ns
    yolo.train(tiny(labels), dataclasses.replace(job, progress=lambda *_: None))
    assert (job.out / "data" / "data.yaml").stat().st_mtime_ns == written
    expected, found = load_file(out / LAST), load_file(job.out / LAST)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert len((job.out / "metrics.csv").read_text().splitlines()) == 3


def test_the_seed_decides_the_weights(
    finished, samples: list[Sample], labels: Path, tmp_path: Path
):
    expected = load_file(finished[0] / LAST)
    for seed, same in ((0, True), (1, False)):
        job = job_of(samples, labels, tmp_path / f"seed{seed}")
        yolo.train(tiny(labels, seed=seed), job)
        found = load_file(job.out / LAST)
        assert all(torch.equal(found[n], tensor) for n, tensor in expected.items()) == same


def test_it_computes_on_as_many_cores_as_everything_else(
    samples: list[Sample], labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: list[int] = []
    report = OfflineSegmentation._report
    monkeypatch.setattr(
        *(OfflineSegmentation, "_report"),
        lambda trainer: (seen.append(torch.get_num_threads()), report(trainer)),
    )
    before = torch.get_num_threads()
    # Ultralytics takes one less than there are.
    monkeypatch.setattr(torch_utils, "NUM_THREADS", 1)
    try:
        torch.set_num_threads(2)
        yolo.train(tiny(labels, epochs=1), job_of(samples, labels, tmp_path / "run"))
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {2}


def test_its_own_format_is_used_where_it_is(samples: list[Sample], labels: Path, tmp_path: Path):
    job = job_of(samples, labels, tmp_path / "run")
    data = tmp_path / "data"
    converters.write(samples, data, format="yolo", labels=job.labels)
    # A pickled cache beside the labels, as a stranger may have left it.
    (data / "labels" / "train.cache").write_bytes(pickle.dumps("never read"))
    found = converters.read(data, format="yolo", labels=job.labels)
    job = dataclasses.replace(
        job, train=found[:4], val=(), data=data, data_format="yolo", split=None
    )
    yolo.train(tiny(labels, epochs=1), job)
    assert not (job.out / "data").exists()
    assert (data / "labels" / "train.cache").read_bytes() == pickle.dumps("never read")
    assert list(yolo.predict(job.out, tiny(labels), samples[:1], PredictOptions(device="cpu")))


def foreign(data: Path) -> None:
    (data / "provenance.json").unlink()


def reordered(data: Path) -> None:
    path = data / "data.yaml"
    record = yaml.safe_load(path.read_text(encoding="utf-8"))
    names = list(record["names"].values())
    path.write_text(yaml.safe_dump({**record, "names": names[::-1]}), encoding="utf-8")


@pytest.mark.parametrize("change", [foreign, reordered])
def test_data_of_others_in_its_format_are_converted(
    change: Callable[[Path], None], samples: list[Sample], labels: Path, tmp_path: Path
):
    """Ultralytics goes by the numbers of its classes; a stranger may have numbered them at will."""
    job = job_of(samples, labels, tmp_path / "run")
    data = tmp_path / "data"
    converters.write(samples, data, format="yolo", labels=job.labels)
    change(data)
    found = converters.read(data, format="yolo", labels=job.labels)
    job = dataclasses.replace(
        job, train=found[:4], val=found[4:], data=data, data_format="yolo", split=None
    )
    job.out.mkdir(parents=True, exist_ok=True)
    images = yolo.label_files(job)
    assert all(image.is_relative_to(job.out / "data") for image in images)
    again = converters.read(job.out / "data", labels=job.labels)
    assert {s.key: label_areas(s) for s in again} == {s.key: label_areas(s) for s in found}


def label_areas(sample: Sample) -> list[tuple[str, int]]:
    return [(i.label, rasterize(i.geometry, sample.size_hw).area) for i in sample.instances]


def test_starts_from_safetensors_and_from_a_pt_file(labels: Path, tmp_path: Path):
    config = tiny(labels)
    source = random_network(config, len(CLASSES))
    half = {k: v.half() if v.is_floating_point() else v for k, v in source.state_dict().items()}
    save_file({k: v.contiguous() for k, v in half.items()}, tmp_path / "w.safetensors")
    torch.save({"model": source, "ema": None}, tmp_path / "w.pt")
    for name in ("w.safetensors", "w.pt"):
        network = build_network(config, len(CLASSES))
        load_initial(network, str(tmp_path / name))
        weight = network.state_dict()["model.0.conv.weight"]
        torch.testing.assert_close(
            weight, source.state_dict()["model.0.conv.weight"], atol=1e-3, rtol=0
        )


ODD_NAMES = {
    "o'neil/w.pt": "oneil/w.pt",
    " blanks /w .pt": "blanks/w.pt",
    "n\u00e4h \u2603/w.pt": "nah/w.pt",
    'a"b#c;d&e$(f)/w.pt': "a/w.pt",
    "line\nbreak/w.pt": "linebreak/w.pt",
    "a%2Fb/w.pt": "a/b/w.pt",
    "yolov5n.pt": "yolov5nu.pt",
    "yolov3-spp.pt": "yolov3-sppu.pt",
}


@pytest.mark.parametrize("name", ODD_NAMES)
def test_the_very_file_is_opened_whatever_its_path(
    labels: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    config = tiny(labels)
    for place in (name, ODD_NAMES[name]):
        network = random_network(config, len(CLASSES))
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        if place != name:
            network.requires_grad_(False)
            network.state_dict()["model.0.conv.weight"].zero_()
        torch.save({"model": network, "ema": None}, tmp_path / place)
    monkeypatch.chdir(tmp_path)
    for given in (name, str(tmp_path / name)):
        network = build_network(config, len(CLASSES))
        with offline():
            load_initial(network, given)
        assert network.state_dict()["model.0.conv.weight"].abs().sum() > 0
    (tmp_path / name).write_bytes(b"broken")
    with offline(), pytest.raises(ValueError, match="expected weights of Ultralytics") as error:
        load_initial(network, name)
    assert "\n" not in str(error.value).replace(name, "")
    assert (tmp_path / name).read_bytes() == b"broken"


@pytest.mark.parametrize("folder", ["o'neil", " a b", "5x", "n\u00e4h#"])
def test_a_network_s_description_is_the_very_file(labels: Path, tmp_path: Path, folder: str):
    wanted = network_description(tiny(labels)) | {"note": "mine"}
    place = tmp_path / folder / "tiny-seg.yaml"
    place.parent.mkdir()
    place.write_text(yaml.safe_dump(wanted))
    with offline():
        assert network_description(tiny(labels, model=str(place)))["note"] == "mine"
        with pytest.raises(ValueError, match="found neither here nor in Ultralytics"):
            network_description(tiny(labels, model=str(tmp_path / "6x" / "tiny-seg.yaml")))


def test_weights_that_are_no_numbers_are_refused(labels: Path, tmp_path: Path):
    network = random_network(tiny(labels), len(CLASSES))
    network.state_dict()["model.0.conv.weight"][0] = np.inf
    torch.save({"model": network, "ema": None}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"w\.pt: expected finite weights"):
        load_initial(network, str(tmp_path / "w.pt"))


@pytest.mark.parametrize("what", ["loss", "weights"])
def test_a_training_that_diverges_ends_and_keeps_what_was_good(
    samples: list[Sample], labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
):
    job = job_of(samples, labels, tmp_path / "run")
    start = OfflineSegmentation._start_epoch

    def spoil(trainer: OfflineSegmentation) -> None:
        start(trainer)
        if trainer.epoch == 1:
            weights = dict(trainer.model.named_parameters())
            bad = float("nan") if what == "loss" else 1e38
            with torch.no_grad():
                weights["model.0.conv.weight"].mul_(bad)

    monkeypatch.setattr(OfflineSegmentation, "_start_epoch", spoil)
    with pytest.raises(DivergedError, match=r"epoch 2: .*; lower lr0"):
        yolo.train(tiny(labels, epochs=3), job)
    with (job.out / "metrics.csv").open() as lines:
        assert [row["epoch"] for row in csv.DictReader(lines)] == ["1"]
    for name in (BEST, LAST):
        assert read_weights(job.out / name)
    assert read_checkpoint(job.out / RESUME)["epoch"] == 0


def test_a_pickle_with_code_is_refused(labels: Path, tmp_path: Path):
    target = tmp_path / "touched"
    torch.save({"model": CallsOnLoad(target)}, tmp_path / "evil.pt")
    network = build_network(tiny(labels), len(CLASSES))
    with pytest.raises(ValueError, match=r"evil\.pt: expected weights of Ultralytics"):
        load_initial(network, str(tmp_path / "evil.pt"))
    assert not target.exists()


def test_a_file_of_mere_numbers_is_one_line(labels: Path, tmp_path: Path):
    network = build_network(tiny(labels), len(CLASSES))
    for content in (network.state_dict(), {"model": network.state_dict()}):
        torch.save(content, tmp_path / "numbers.pt")
        with pytest.raises(ValueError, match=r"numbers\.pt: .* no network is in it"):
            load_initial(network, str(tmp_path / "numbers.pt"))


class CallsOnLoad:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra": {"no_such_key": 1}}, "no_such_key"),
        ({"extra": {"resume": True}}, "decided by this family"),
        ({"extra": {"lr0": 1.0}}, "one level up"),
        ({"imgsz": 100}, "multiple of 32"),
        ({"device": "0,1"}, "for several set devices=2"),
        ({"batch": "auto"}, "effective_batch"),
        ({"moasic": 1.0}, "moasic"),
    ],
)
def test_bad_keys_are_errors(labels: Path, changes: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        tiny(labels, **changes)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("yolov8n.yaml", "segmentation network"),
        ("nowhere-seg.yaml", "found neither"),
        ("yolov8n-seg.pt", "a .yaml file.*: model=yolov8n-seg.yaml init=yolov8n-seg.pt$"),
    ],
)
def test_other_networks_are_errors(labels: Path, name: str, message: str):
    with pytest.raises(ValueError, match=message):
        build_network(tiny(labels, model=name), len(CLASSES))


def test_missing_weights_are_one_line(labels: Path):
    network = build_network(tiny(labels), len(CLASSES))
    with pytest.raises(ValueError, match="nothing is downloaded") as error:
        load_initial(network, "yolov8x-seg.pt")
    assert "\n" not in str(error.value)
    assert re.search(
        r"; get https://github\.com/ultralytics/assets/releases/download/v\d[\d.]+/"
        r"yolov8x-seg\.pt and set init=FOLDER/yolov8x-seg\.pt$",
        str(error.value),
    )
    with pytest.raises(ValueError, match=r"Shipped are: demo\.safetensors$"):
        load_initial(network, "mine.pt")


def test_a_bad_value_of_ultralytics_is_one_line(labels: Path, tmp_path: Path):
    config = tiny(labels, extra={"cutmix": 7})
    with pytest.raises(ValueError, match="cutmix") as error:
        ultralytics_settings(config, CPU, tmp_path)
    assert "\n" not in str(error.value)


def test_flips_at_test_time_are_refused(labels: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="tta hflip"):
        list(yolo.predict(tmp_path, tiny(labels), [], PredictOptions(tta=("hflip",))))


@pytest.mark.parametrize("name", list(configs.names("yolo")))
def test_shipped_configs_describe_networks(name: str):
    config = load_config(YoloConfig, "yolo", name)
    described = network_description(config)
    assert "Segment" in str(described["head"][-1])
    assert (config.overlap_mask, config.mosaic, config.copy_paste) == (False, 0.0, 0.0)
    assert config.mask_ratio <= 2
    settings = ultralytics_settings(config, CPU, Path("nowhere"))
    assert settings["nbs"] == config.batch
    assert settings["optimizer"] == "AdamW"


def test_importing_touches_neither_home_nor_network(tmp_path: Path):
    program = """
import os, socket, sys
def refuse(*_): raise AssertionError("something reached for a network")
socket.getaddrinfo = socket.socket.connect = refuse
import torch
threads = torch.get_num_threads()
import zoo.families.yolo.training_step, zoo.families.yolo.family
from ultralytics.utils import ONLINE, SETTINGS
from ultralytics.utils.events import events
assert not ONLINE and not SETTINGS["sync"] and not events.enabled
assert torch.get_num_threads() == threads and "OMP_NUM_THREADS" not in os.environ
assert "ultralytics_platform" not in sys.modules
"""
    kept = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "SYSTEMROOT")
    env = {name: os.environ[name] for name in kept if name in os.environ}
    env |= {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], check=True, env=env)
    assert not list(tmp_path.iterdir())


def test_the_family_is_registered():
    family = load_family("yolo")
    assert (family.kind, family.Config) == ("instance", YoloConfig)
