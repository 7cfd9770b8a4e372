from __future__ import annotations

import unicodedata

import pytest

import converters
from converters import DataError
from converters.formats.coco.images import ImageFinder

SQUARE = [2, 3, 8, 3, 8, 9, 2, 9]


@pytest.mark.parametrize(
    "name",
    [
        "person_keypoints_val2017",
        "keypoints_val2017",
        "stuff_val2017",
        "instances_val2017",
        "lvis_v1_val",
        "lvis_v1_val2017",
        "captions_val",
        "instances_minival_val2017",
        "val2017_coco",
    ],
)
@pytest.mark.parametrize("folder", ["val2017", "images/val2017"])
def test_folders_by_the_names_of_files(name, folder, new, tmp_path, labels):
    data = new(tmp_path / "data", f"annotations/{name}.json", folder).add([SQUARE])
    data.save()
    (sample,) = converters.read(data.root, labels=labels)
    assert sample.key == f"{folder}/a"


def test_a_file_finds_its_own_subset_first(new, tmp_path, labels):
    for subset in ("train2017", "val2017"):
        new(tmp_path / "data", f"annotations/person_keypoints_{subset}.json", subset).add(
            [SQUARE]
        ).save()
    found = converters.read(tmp_path / "data", labels=labels)
    assert [s.key for s in found] == ["train2017/a", "val2017/a"]


def test_lvis_names_images_by_their_address(new, tmp_path, labels):
    data = new(tmp_path / "data", "annotations/lvis_v1_val.json", "train2017").add([SQUARE])
    del data.content["images"][0]["file_name"]
    data.content["images"][0]["coco_url"] = "http://images.cocodataset.org/train2017/a.png"
    data.save()
    (sample,) = converters.read(data.root, labels=labels)
    assert sample.key == "train2017/a"


@pytest.mark.parametrize(
    "name",
    ["/content/set/train2017/a.png", "C:\\set\\a.png", "../a.png", "x/../../train2017/a.png"],
)
def test_paths_of_another_machine_are_found_by_their_end(name, data, labels):
    data.content["images"][0]["file_name"] = name
    data.add([SQUARE]).save()
    (sample,) = converters.read(data.root, labels=labels)
    assert sample.key == "images/train2017/a"


def test_the_longest_end_of_a_path_counts(new, tmp_path, labels):
    data = new(tmp_path / "data", "annotations.json", "b").add([SQUARE])
    data.image("a.png").image("c/b/a.png")
    data.content["images"] = [{"id": 7, "file_name": "/mnt/c/b/a.png"}]
    data.save()
    (sample,) = converters.read(data.root, labels=labels)
    assert sample.key == "c/b/a"


def test_nothing_outside_the_folder_is_found(data, labels):
    data.content["images"][0]["file_name"] = "../../../../b.png"
    data.add([SQUARE]).save()
    data.image("../b.png")
    with pytest.raises(DataError, match=r"'\.\./\.\./\.\./\.\./b\.png': expected an image beside"):
        converters.read(data.root, labels=labels)


def test_two_paths_of_another_machine_are_not_one_image(data, labels):
    data.content["images"][0]["file_name"] = "/one/a.png"
    data.content["images"].append({"id": 8, "file_name": "/two/a.png"})
    data.add([SQUARE]).save()
    with pytest.raises(DataError, match=r"two/a|/one/a"):
        converters.read(data.root, labels=labels)


@pytest.mark.parametrize("name", ["A.PNG", "a.jpg", "a", "%61.png"])
def test_a_name_that_is_nearly_right_is_told(name, data, labels):
    data.content["images"][0]["file_name"] = name
    data.add([SQUARE]).save()
    with pytest.raises(DataError, match=r"found none, but a\.png; --images says where they are"):
        converters.read(data.root, labels=labels)


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("written", ["NFC", "NFD"])
@pytest.mark.parametrize("place", ["손뼈.png", "é/ü.png"])
def test_names_in_any_normal_form(place, on_disk, written, data, labels):
    data.content["images"] = []
    data.image("images/train2017/" + unicodedata.normalize(on_disk, place))
    name = unicodedata.normalize(written, place)
    data.content["images"] = [{"id": 7, "file_name": name}]
    data.add([SQUARE]).save()
    (sample,) = converters.read(data.root, labels=labels)
    assert unicodedata.normalize("NFC", sample.key + ".png").endswith(
        unicodedata.normalize("NFC", place)
    )


@pytest.mark.parametrize(
    "name", ["a" * 5000 + ".png", "\0.png", "\ud800.png", "é" * 5000, ".", "b"]
)
def test_names_of_no_file(name, tmp_path):
    finder = ImageFinder(tmp_path, tmp_path / "train.json")
    with pytest.raises(ValueError, match="expected"):
        finder.find({"file_name": name})
    assert finder.guess({"file_name": name})["key"]


@pytest.mark.parametrize("name", ["", None, 5, ["a"], "/", "."])
def test_images_without_a_name_have_a_key_in_messages(name, tmp_path):
    assert ImageFinder(tmp_path, tmp_path / "train.json").guess({"file_name": name})["key"]


@pytest.mark.parametrize("name", ["a.png", "sub/a.png"])
def test_fiftyone_has_labels_json_and_data(name, new, tmp_path, labels):
    data = new(tmp_path / "data", "labels.json", f"data/{name}".removesuffix("/a.png"))
    data.content["images"][0]["file_name"] = name
    data.add([SQUARE]).save()
    (sample,) = converters.read(data.root, labels=labels)
    assert (sample.key, len(sample.instances)) == (f"data/{name}".removesuffix(".png"), 1)


@pytest.mark.parametrize("size", [(None, None), (20, None), (20.0, 30.0), ("20", "30")])
def test_sizes_that_are_not_said_or_said_otherwise(size, data, labels):
    data.content["images"][0] |= {"height": size[0], "width": size[1]}
    data.add([SQUARE]).save()
    (sample,) = converters.read(data.root, labels=labels)
    assert sample.size_hw == (20, 30)


@pytest.mark.parametrize("folder", ["", "train2017"])
@pytest.mark.parametrize("name", ["a.png", "/home/somebody/set/a.png", "C:\\set\\a.png"])
def test_images_may_lie_elsewhere(name, folder, new, tmp_path, labels):
    data = new(tmp_path / "data", images=str(tmp_path / "photos" / folder))
    data.content["images"][0]["file_name"] = name
    data.add([SQUARE]).save()
    with pytest.raises(ValueError, match=r"--images says where|expected 'file_name' to be"):
        converters.read(data.root, labels=labels)
    (sample,) = converters.read(data.root, labels=labels, images=tmp_path / "photos")
    assert sample.key == f"{folder}/a".lstrip("/")
    assert sample.image == tmp_path / "photos" / folder / "a.png"
    assert len(sample.instances) == 1


def test_images_that_are_not_elsewhere_either(data, tmp_path, labels):
    (tmp_path / "photos").mkdir()
    data.add([SQUARE]).save()
    with pytest.raises(ValueError, match=r"instances_train2017.json: 'a.png': .* in .*photos"):
        converters.read(data.root, labels=labels, images=tmp_path / "photos")
    with pytest.raises(ValueError, match=r"--images: expected a folder, found none: .*gone"):
        converters.read(data.root, labels=labels, images=tmp_path / "gone")


def test_only_some_formats_have_images_elsewhere(tree, labels):
    tree.hand("ID001/a", ("Ulna", [(1, 1), (5, 5), (1, 5)]))
    with pytest.raises(ValueError, match="--images: format 'handbone': expected one whose images"):
        converters.read(tree.root, labels=labels, images=tree.root)


def test_an_image_that_alone_has_the_name_is_found_in_any_folder(data):
    data.image("shots/input/b.png", id=8).save()
    found = {sample.image.name: sample.image for sample in converters.read(data.root)}
    assert found["b.png"] == data.root / "shots" / "input" / "b.png"


def test_one_file_about_all_subsets_and_images_elsewhere(new, tmp_path):
    data = new(tmp_path / "set", "annotations/all.json", "shots/train").add([SQUARE])
    data.image("shots/valid/b.png", id=8).save()
    (data.root / "shots").rename(tmp_path / "shots")
    found = converters.read(data.root, images=tmp_path / "shots")
    assert [sample.image for sample in found] == [
        tmp_path / "shots" / place for place in ("train/a.png", "valid/b.png")
    ]


@pytest.mark.parametrize("folder", ["valid", "images/test2017"])
def test_an_image_of_another_subset_is_not_meant(folder, data):
    data.image(f"{folder}/b.png", id=8).save()
    with pytest.raises(DataError, match=r"'b\.png': expected an image beside this file"):
        converters.read(data.root)


def test_of_two_of_one_name_in_other_folders_none_is_guessed(data):
    data.image("colour/b.png", id=8).image("infrared/b.png").save()
    with pytest.raises(
        DataError, match=r"found 2 \(colour/b\.png, infrared/b\.png, \.\.\.\): --im"
    ):
        converters.read(data.root)
    (tmp := data.root / "infrared" / "b.png").rename(tmp.with_name("c.png"))
    (data.root / ".thumbnails").mkdir()
    (data.root / "colour" / "b.png").rename(data.root / ".thumbnails" / "b.png")
    with pytest.raises(DataError, match=r"'b\.png': expected an image beside this file"):
        converters.read(data.root)
