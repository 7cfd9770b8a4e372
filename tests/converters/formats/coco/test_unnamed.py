from __future__ import annotations

import pytest

import converters
from converters.subsets.keys import is_test_key

SQUARE = [2, 3, 8, 3, 8, 9, 2, 9]


def problems(data, labels, **more):
    data.add([SQUARE]).save()
    return [str(p) for p in converters.scan(data.root, labels=labels, **more)[1]]


@pytest.mark.parametrize("folder", ["images/val2017", "images/val2017/ID1", "valid", "train"])
def test_a_subset_of_which_no_file_speaks(folder, data, labels):
    (found,) = problems(data.image(f"{folder}/c.png").image(f"{folder}/b.png"), labels)
    assert found.startswith(folder.removesuffix("/ID1"))
    assert "expected an annotation file that names its images, found none for 2 such as b" in found


@pytest.mark.parametrize(
    "place",
    [
        "images/train2017/b.png",
        "images/b.png",
        "previews/b.png",
        ".cache/train/b.png",
        "annotations/panoptic_val2017/b.png",
        "images/test2017/b.png",
    ],
)
@pytest.mark.parametrize("subset", ["train", "all"])
def test_images_that_may_have_no_annotations(place, subset, data, labels):
    assert problems(data.image(place), labels, subset=subset) == []


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (1, "left out 1 images that no annotation file names: images/train2017/b0.png"),
        (
            5,
            "left out 5 images that no annotation file names: images/train2017/b0.png, "
            "images/train2017/b1.png, images/train2017/b2.png, ...",
        ),
    ],
)
def test_images_without_an_entry_are_counted(count, said, data, labels):
    for number in range(count):
        data.image(f"images/train2017/b{number}.png")
    data.add([SQUARE]).save()
    notes = []
    converters.read(data.root, labels=labels, note=notes.append)
    assert notes == [f"{data.root}: {said}"]


@pytest.mark.parametrize(
    ("folder", "key"), [("test2017", "images/test2017/b"), ("test_images", "images/test/b")]
)
def test_images_of_a_test_folder_are_to_be_answered(folder, key, data, labels):
    data.image(f"images/{folder}/b.png").add([SQUARE]).save()
    notes = []
    (one,) = converters.read(data.root, labels=labels, note=notes.append)
    (other,) = converters.read(data.root, labels=labels, subset="test", note=notes.append)
    assert (other.key, other.instances, is_test_key(other.key)) == (key, (), True)
    found = converters.read(data.root, labels=labels, subset="all", note=notes.append)
    assert {s.key for s in found} == {one.key, key}
    assert notes == []


def test_images_that_only_files_of_the_test_subset_name(new, tmp_path, labels):
    other = new(tmp_path / "data", "annotations/instances_test2017.json")
    other.image("train2017/b.png")
    other.content["images"] = [{"id": 1, "file_name": "train2017/b.png"}]
    other.save()
    data = new(tmp_path / "data")
    assert problems(data, labels) == []


def test_a_folder_whose_images_are_missing_is_spoken_of(data, labels):
    data.content["images"][0]["file_name"] = "b.png"
    (found,) = problems(data, labels)
    assert "'b.png': expected an image beside this file" in found


def test_links_to_folders_are_followed(data, labels, tmp_path):
    data.save()
    (data.root / "images").rename(tmp_path / "elsewhere")
    (data.root / "images").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "elsewhere")
    assert problems(data, labels) == []


@pytest.mark.parametrize("name", ["instances.json", "fold2.json", "train_test.json"])
@pytest.mark.parametrize("folder", ["test", "test_images"])
def test_a_file_of_several_parts_says_which_objects_its_test_images_have(
    name, folder, new, tmp_path
):
    data = new(tmp_path / "data", name, "train").image(f"{folder}/a.png").add([SQUARE])
    data.content["images"][0]["file_name"] = "train/a.png"
    data.content["images"].append({"id": 8, "file_name": f"{folder}/a.png"})
    data.add([SQUARE], image_id=8).save()
    expected = {"train": ["train/a"], "test": ["test/a"], "all": ["test/a", "train/a"]}
    for subset, keys in expected.items():
        for place in (data.root, data.root / name):
            found = converters.read(place, subset=subset)
            assert [(s.key, len(s.instances)) for s in found] == [(key, 1) for key in keys]


def test_a_file_of_training_images_says_so_wherever_they_lie(new, tmp_path):
    data = new(tmp_path / "data", "annotations/instances_train.json", "test").add([SQUARE])
    data.content["images"][0]["file_name"] = "test/a.png"
    data.save()
    assert len(converters.read(data.root)) == len(converters.read(data.root, subset="all")) == 1
    with pytest.raises(ValueError, match="of subset 'test', found instances_train"):
        converters.read(data.root, subset="test")


def test_a_file_of_test_images_alone_is_none_to_learn_from(new, tmp_path):
    data = new(tmp_path / "data", "instances.json", "test").add([SQUARE])
    data.content["images"][0]["file_name"] = "test/a.png"
    data.save()
    with pytest.raises(ValueError, match=r"'train', found instances\.json, without an image of it"):
        converters.read(data.root)
    assert len(converters.read(data.root, subset="test")) == 1


def test_broken_training_images_do_not_matter_to_test_images(new, tmp_path):
    data = new(tmp_path / "data", "instances.json", "test").add([SQUARE])
    data.content["images"][0]["file_name"] = "test/a.png"
    data.content["images"].append({"id": 8, "file_name": "train/gone.png"})
    data.save()
    assert len(converters.read(data.root, subset="test")) == 1
    with pytest.raises(converters.DataError, match="gone"):
        converters.read(data.root)


@pytest.mark.parametrize("subset", ["train", "test", "all"])
def test_a_file_of_test_images_that_is_named_is_of_any_subset(subset, data, labels, new):
    data.add([SQUARE]).save()
    test = new(data.root, "annotations/instances_test2017.json", "images/test2017").add([SQUARE])
    (found,) = converters.read(test.save(), labels=labels, subset=subset)
    assert (found.key, len(found.instances)) == ("images/test2017/a", 1)


@pytest.mark.parametrize("place", ["test/b.jpg", "test_images/b.png"])
def test_two_test_images_of_one_key_are_refused(place, data, labels):
    data.image("test/b.png").image(place).add([SQUARE]).save()
    with pytest.raises(converters.DataError, match="expected one image of this key"):
        converters.read(data.root, labels=labels, subset="test")
