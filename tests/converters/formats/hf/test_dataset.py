from __future__ import annotations

import json
import pickle
import warnings
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image
from shapely.geometry import box

import converters
from converters import DataError
from converters.formats.hf import dataset as hf_dataset
from converters.formats.hf import rows as hf_rows
from converters.formats.hf.dataset import Transform
from converters.formats.hf.rows import RowImage
from converters.formats.mask_layouts import encode_mask
from converters.masks import crop, outline, pack, rasterize_labels, unpack
from converters.splits.split import make_split
from converters.types import Frame, Instance, LabelSpace, Sample

pytestmark = pytest.mark.slow

LAYOUTS = ("arrow", "parquet")


def write(samples, out, labels, **more):
    return converters.write(samples, out, format="segformer", labels=labels, **more)


@pytest.fixture
def split(samples):
    return make_split(samples, folds=3)


@pytest.fixture(params=LAYOUTS)
def layout(request):
    return request.param


@pytest.fixture
def folder(samples, labels, split, layout, tmp_path):
    write(samples, tmp_path / "out", labels, split=split, fold=1, layout=layout)
    return tmp_path / "out"


@pytest.fixture
def datasets():
    return pytest.importorskip("datasets")


def load(folder, layout, datasets, tmp_path):
    if layout == "arrow":
        return datasets.load_from_disk(str(folder))
    return datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))


# --- what Hugging Face's library makes of it


def test_datasets_reads_images_and_masks(
    folder, layout, samples, labels, split, datasets, tmp_path
):
    found = load(folder, layout, datasets, tmp_path)
    assert sorted(found["train"]["key"]) == sorted(split.train(1))
    assert sorted(found["validation"]["key"]) == sorted(split.val(1))
    by_key = {s.key: s for s in samples}
    for row in (*found["train"], *found["validation"]):
        sample = by_key[row["key"]]
        assert (row["group"], row["height"], row["width"]) == (sample.group, 48, 48)
        original = cv2.imread(str(sample.image), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(np.asarray(row["image"]), original)
        truth = rasterize_labels(sample.instances, sample.size_hw)
        bits = unpack(np.asarray(row["mask"]), 29)
        for name, plane in zip(labels.names, bits, strict=True):
            expected = truth[name].full((48, 48)) if name in truth else np.zeros((48, 48))
            np.testing.assert_array_equal(plane, expected, name)


def test_load_dataset_finds_the_files_by_the_card(folder, split, datasets, tmp_path):
    found = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert sorted(found["train"]["key"]) == sorted(split.train(1))
    assert sorted(found["validation"]["key"]) == sorted(split.val(1))
    assert found["train"][0]["mask"].mode == "RGBA"


def test_load_from_disk_cannot_read_parquet(samples, labels, datasets, tmp_path):
    """Why there are two layouts; when this fails, one may be enough."""
    write(samples, tmp_path / "out", labels, layout="parquet")
    with pytest.raises(FileNotFoundError, match="neither a `Dataset` directory"):
        datasets.load_from_disk(str(tmp_path / "out"))
    write(samples, tmp_path / "arrow", labels)
    state = tmp_path / "arrow" / "train" / "state.json"
    record = json.loads(state.read_text())
    (parquet,) = (tmp_path / "out" / "data").iterdir()
    record["_data_files"] = [{"filename": str(parquet)}]
    state.write_text(json.dumps(record))
    with pytest.raises(Exception, match=r"(?i)invalid|magic|metadata|IPC"):
        datasets.load_from_disk(str(tmp_path / "arrow"))


def test_without_a_split_there_is_only_train(samples, labels, layout, tmp_path, datasets):
    write(samples, tmp_path / "out", labels, layout=layout)
    assert list(load(tmp_path / "out", layout, datasets, tmp_path)) == ["train"]
    with pytest.raises(ValueError, match="split 'validation', found only: train"):
        hf_dataset.open_split(tmp_path / "out", "validation")


def test_id2label(folder, labels):
    record = json.loads((folder / "id2label.json").read_text())
    assert record["0"] == "finger-1"
    assert record["28"] == "Ulna"
    assert hf_dataset.read_labels(folder) == labels.names
    assert "| 28 | Ulna |" in (folder / "README.md").read_text()
    (folder / "id2label.json").write_text('{"1": "a"}')
    with pytest.raises(ValueError, match="expected numbers with class names"):
        hf_dataset.read_labels(folder)


@pytest.mark.parametrize("name", ["background", "Background", "void", "ignore", "unlabeled"])
def test_a_class_that_is_called_as_what_others_call_none(name, layout, draw, tmp_path):
    sample = replace(draw("plain"), instances=(Instance(name, box(8, 8, 30, 30)),))
    labels = LabelSpace("mine", (name, "cat"))
    write([sample], tmp_path / "out", labels, layout=layout)
    # The names alone say it, without what we noted beside them.
    (tmp_path / "out" / "provenance.json").unlink()
    (found,) = converters.read(tmp_path / "out")
    assert found.labels == (name,)
    assert converters.label_space(tmp_path / "out").names == labels.names


# --- rows


def test_open_split_and_decode_row(folder, samples):
    rows = hf_dataset.open_split(folder, "validation")
    key, image, packed = hf_dataset.decode_row(rows[0])
    sample = next(s for s in samples if s.key == key)
    np.testing.assert_array_equal(image, cv2.imread(str(sample.image), cv2.IMREAD_GRAYSCALE))
    assert (image.dtype, packed.dtype, packed.shape) == (np.uint8, np.uint8, (48, 48, 4))


def test_image_bytes_are_those_of_the_file(folder, samples):
    by_key = {s.key: s for s in samples}
    for row in hf_dataset.open_split(folder, "train"):
        assert row["image"]["bytes"] == by_key[row["key"]].image.read_bytes()
        assert row["image"]["path"] == by_key[row["key"]].file_name


@pytest.fixture
def many(samples, labels, layout, tmp_path, monkeypatch):
    """Six rows in two files, of which the first has two batches."""
    monkeypatch.setattr(hf_rows, "ROWS_PER_FILE", 4)
    monkeypatch.setattr(hf_rows, "ROWS_PER_BATCH", 3)
    write(samples, tmp_path / "out", labels, layout=layout)
    return tmp_path / "out"


def test_many_rows_go_to_several_files(many, layout, samples):
    files = {
        "arrow": ["train/data-00000-of-00002.arrow", "train/data-00001-of-00002.arrow"],
        "parquet": ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"],
    }
    found = [*many.rglob("*.arrow"), *many.rglob("*.parquet")]
    assert sorted(p.relative_to(many).as_posix() for p in found) == files[layout]
    rows = hf_dataset.open_split(many, "train")
    assert [row["key"] for row in rows] == [s.key for s in samples]
    assert [rows[i]["key"] for i in (5, -1, 3, -6)] == [samples[i].key for i in (5, 5, 3, 0)]
    with pytest.raises(IndexError, match="row 6: expected one of 6"):
        rows[6]


def test_samples_of_several_files(many, samples, labels):
    back = {s.key: s for s in converters.read(many, labels=labels)}
    for sample in samples:
        assert back[sample.key].image.read_bytes() == sample.image.read_bytes()


def test_rows_and_images_travel_to_other_processes(folder, labels):
    rows = hf_dataset.open_split(folder, "train")
    assert pickle.loads(pickle.dumps(rows))[0] == rows[0]
    image = converters.read(folder, labels=labels)[0].image
    assert pickle.loads(pickle.dumps(image)).read_bytes() == image.read_bytes()


def test_image_of_a_replaced_folder_is_not_an_old_one(samples, labels, layout, tmp_path):
    for sample in samples[:2]:
        write([sample], tmp_path / "out", labels, layout=layout)
        (back,) = converters.read(tmp_path / "out", labels=labels)
        assert back.image.read_bytes() == sample.image.read_bytes()


def test_image_of_a_folder_that_is_gone(folder, labels):
    image = converters.read(folder, labels=labels)[0].image
    image.file.unlink()
    with pytest.raises(FileNotFoundError):
        image.read_bytes()


def test_name_of_an_image():
    image = RowImage("a.arrow", 3, "image_1_R.v2.png")
    assert (image.stem, image.suffix, str(image)) == (
        *("image_1_R.v2", ".png"),
        "a.arrow, row 3 (image_1_R.v2.png)",
    )


def test_reading_leaves_no_files(folder, labels):
    before = sorted(folder.rglob("*"))
    list(hf_dataset.open_split(folder, "train"))
    converters.read(folder, labels=labels)
    assert sorted(folder.rglob("*")) == before


def test_folder_that_is_none(tmp_path):
    with pytest.raises(ValueError, match="expected a data set in format 'segformer'"):
        hf_dataset.open_split(tmp_path, "train")


def test_files_that_are_cut_off(folder, labels):
    for path in (*folder.rglob("*.arrow"), *folder.rglob("*.parquet")):
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="expected whole files of rows"):
        hf_dataset.open_split(folder, "train")
    samples, problems = converters.scan(folder, labels=labels)
    assert samples == []
    assert len(problems) == 2
    assert all("expected rows of this format" in str(p) for p in problems)


def test_rows_that_do_not_fit():
    image = bytes(cv2.imencode(".png", np.zeros((4, 6), np.uint8))[1])
    mask = bytes(cv2.imencode(".png", np.zeros((4, 5, 4), np.uint8))[1])
    with pytest.raises(ValueError, match=r"a: mask: expected a mask of \(4, 6\), found \(4, 5\)"):
        hf_dataset.decode_row({"key": "a", "image": {"bytes": image}, "mask": {"bytes": mask}})
    with pytest.raises(ValueError, match="a: expected an image"):
        hf_dataset.decode_row({"key": "a", "image": {"bytes": b"?"}, "mask": {"bytes": mask}})


# --- samples


def test_comes_back_to_the_pixel(sample, labels, layout, tmp_path):
    assert not write([sample], tmp_path / "out", labels, layout=layout)
    (back,) = converters.read(tmp_path / "out", labels=labels)
    before = pack(rasterize_labels(sample.instances, sample.size_hw), labels, sample.size_hw)
    after = pack(rasterize_labels(back.instances, back.size_hw), labels, back.size_hw)
    np.testing.assert_array_equal(before, after)


def test_attributes_and_frame_come_back(draw, labels, layout, tmp_path):
    frame = Frame((5, 6, 24, 16), (48, 48), is_stored=False)
    whole = draw("plain")
    part = replace(whole, key="a/b", size_hw=(32, 48), frame=frame, attributes={"sex": "F"})
    write([whole, part], tmp_path / "out", labels, layout=layout)
    second, first = converters.read(tmp_path / "out", labels=labels)
    assert (first.frame, dict(first.attributes)) == (None, {})
    assert (second.frame, dict(second.attributes)) == (replace(frame, is_stored=True), {"sex": "F"})


def test_subsets(draw, labels, layout, tmp_path):
    train = draw("plain")
    test = Sample("test/DCM/ID9/a", train.image, (48, 48))
    write([train, test], tmp_path / "out", labels, layout=layout)
    for subset, keys in {"train": [train.key], "test": [test.key]}.items():
        found = converters.read(tmp_path / "out", subset=subset, labels=labels)
        assert [s.key for s in found] == keys


def test_other_classes_are_refused(folder):
    with pytest.raises(ValueError, match="expected classes of 'waste'"):
        converters.read(folder, labels=LabelSpace("waste", ("paper", "glass")))


@pytest.mark.parametrize("classes", [32, 33, 64, 80])
def test_any_number_of_classes(classes, draw, layout, tmp_path):
    space = LabelSpace("many", tuple(f"c{i}" for i in range(classes)))
    instances = [Instance(space.names[i], box(i, 2, i + 9, 20)) for i in (0, 31)]
    last = Instance(space.names[-1], box(5, 5, 30, 31))
    sample = replace(draw("plain"), key="a", instances=(*instances[: classes - 31], last))
    write([sample], tmp_path / "out", space, layout=layout)
    (back,) = converters.read(tmp_path / "out", labels=space)
    truth, found = (rasterize_labels(s.instances, (48, 48)) for s in (sample, back))
    assert {n: m.area for n, m in found.items()} == {n: m.area for n, m in truth.items()}
    _, _, packed = hf_dataset.decode_row(
        hf_dataset.open_split(tmp_path / "out", "train")[0], classes
    )
    np.testing.assert_array_equal(
        unpack(packed, classes)[-1], truth[space.names[-1]].full((48, 48))
    )


def test_datasets_reads_the_further_masks(draw, layout, datasets, tmp_path):
    space = LabelSpace("many", tuple(f"c{i}" for i in range(80)))
    sample = replace(draw("plain"), instances=(Instance("c79", box(5, 5, 30, 31)),))
    write([sample], tmp_path / "out", space, layout=layout)
    rows = load(tmp_path / "out", layout, datasets, tmp_path)["train"]
    assert np.asarray(rows[0]["mask_2"])[6, 6].tolist() == [0, 128, 0, 0]
    rows.set_transform(Transform((48, 48), 80))
    labels = rows[0]["labels"]
    assert labels.shape == (80, 48, 48)
    assert np.flatnonzero(labels.any(axis=(1, 2))).tolist() == [79]
    assert "`mask_2`" in (tmp_path / "out" / "README.md").read_text()


def test_broken_rows_are_problems_of_their_samples(samples, labels, layout, tmp_path, monkeypatch):
    make = hf_dataset._row
    broken = {
        samples[1].key: {"mask": {"bytes": b"?", "path": None}},
        samples[2].key: {"image": {"bytes": b"?", "path": "a.png"}},
        samples[3].key: {"height": 47},
        samples[4].key: {"frame": '{"box_xywh": 3}'},
        samples[5].key: {"image": {"bytes": None, "path": "a.png"}},
    }
    monkeypatch.setattr(
        hf_dataset, "_row", lambda *args: {**make(*args), **broken.get(args[-1].key, {})}
    )
    write(samples, tmp_path / "out", labels, layout=layout)
    found, problems = converters.scan(tmp_path / "out", labels=labels)
    assert [s.key for s in found] == [samples[0].key]
    expected = [
        "mask: expected a PNG",
        "expected an image",
        "(47, 48) in the row",
        "frame",
        "bytes in the",
    ]
    assert [(p.key, p.group) for p in problems] == [(s.key, s.group) for s in samples[1:]]
    for problem, words in zip(problems, expected, strict=True):
        assert words in str(problem)
    with pytest.raises(DataError, match="5 problems"):
        converters.read(tmp_path / "out", labels=labels)


# --- what a network takes


def random_masks(classes, size_hw):
    """Blobs, so that a shift by half a pixel shows."""
    noise = np.random.default_rng(0).normal(size=(classes, *size_hw)).astype(np.float32)
    return np.stack([cv2.GaussianBlur(plane, (0, 0), 2) > 0 for plane in noise]).astype(np.uint8)


@pytest.fixture
def picture(labels):
    """Image and mask of one row, as `datasets` decodes them, and the mask's planes."""
    planes = random_masks(29, (90, 70))
    instances = [Instance(n, outline(crop(p))) for n, p in zip(labels.names, planes, strict=True)]
    png = encode_mask(pack(rasterize_labels(instances, (90, 70)), labels, (90, 70)))
    noise = np.random.default_rng(1).integers(0, 256, (90, 70), np.uint8)
    mask = cv2.cvtColor(cv2.imdecode(np.frombuffer(png, np.uint8), -1), cv2.COLOR_BGRA2RGBA)
    return Image.fromarray(noise), Image.fromarray(mask), planes


# Of 90 to 33 rows, some lie in the middle between two: either is the nearest.
SIZES = [(512, 512), (64, 48), (90, 70), (31, 200), (7, 1000)]


def processor(name, size_hw):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, name):
        pytest.skip(f"this transformers has no {name}")
    return getattr(transformers, name)(size={"height": size_hw[0], "width": size_hw[1]})


@pytest.mark.parametrize("size_hw", SIZES)
@pytest.mark.parametrize(
    # Torchvision rounds some grey values the other way when it resizes.
    ("name", "greys"),
    [("SegformerImageProcessorPil", 0), ("SegformerImageProcessor", 1)],
)
def test_transform_is_what_transformers_does(picture, size_hw, name, greys):
    image, mask, _ = picture
    found = Transform(size_hw, 29)({"image": [image], "mask": [mask]})
    expected = processor(name, size_hw)(image.convert("RGB"), return_tensors="np")["pixel_values"]
    (values,) = found["pixel_values"]
    assert (values.dtype, values.shape) == (np.float32, (3, *size_hw))
    step = 1 / 255 / min(hf_dataset.IMAGENET_STD)
    np.testing.assert_allclose(values, expected[0], rtol=0, atol=greys * step + 1e-5)


@pytest.mark.parametrize("size_hw", SIZES)
def test_transformed_labels_are_what_transformers_makes_of_each_class(picture, size_hw):
    image, mask, planes = picture
    (labels,) = Transform(size_hw, 29)({"image": [image], "mask": [mask]})["labels"]
    assert (labels.dtype, labels.shape) == (np.uint8, (29, *size_hw))
    process = processor("SegformerImageProcessor", size_hw)
    for c in (0, 7, 8, 28):
        found = process(image.convert("RGB"), segmentation_maps=Image.fromarray(planes[c]))
        np.testing.assert_array_equal(labels[c], found["labels"][0])


def test_transform_of_a_data_set(folder, layout, datasets, tmp_path):
    torch = pytest.importorskip("torch")
    rows = load(folder, layout, datasets, tmp_path)["train"]
    rows.set_transform(pickle.loads(pickle.dumps(Transform((32, 24), 29))))
    batch = next(iter(torch.utils.data.DataLoader(rows, batch_size=2)))
    assert (batch["pixel_values"].dtype, batch["labels"].dtype) == (torch.float32, torch.uint8)
    assert batch["pixel_values"].shape == (2, 3, 32, 24)
    assert batch["labels"].shape == (2, 29, 32, 24)
    assert batch["labels"].any()


def test_transform_refuses_what_it_cannot_do():
    grey = Image.new("L", (4, 4))
    with pytest.raises(ValueError, match="expected an RGBA image, found L"):
        Transform((4, 4), 3)({"image": [grey], "mask": [grey]})
    with pytest.raises(ValueError, match="positive"):
        Transform((0, 4), 3)
