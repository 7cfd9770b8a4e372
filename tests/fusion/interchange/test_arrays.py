"""Arrays of probabilities that who trains a network of his own has written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from converters.types import LabelSpace, Sample
from fusion.interchange.files.arrays import Activation
from fusion.interchange.files.files import open_written
from fusion.interchange.files.written import KnownImages, WrittenPredictions

LABELS = LabelSpace("tools", ("cup", "fork"), aliases={"mug": "cup"})
SIZE_HW = (40, 60)
Change = Callable[[Any], Any]


@pytest.fixture
def known() -> KnownImages:
    samples = {key: Sample(key, Path(f"{key}.png"), SIZE_HW) for key in ("a/one", "b/two")}
    return KnownImages(samples, LABELS, dict(enumerate(LABELS.names)))


def planes(height: int = 40, width: int = 60) -> Any:
    """Return a cup on the left, surer than the fork on it and beside, float32 (2, H, W)."""
    found = np.zeros((2, height, width), np.float32)
    found[0, :, : width // 2] = 0.8
    found[1, :, width // 4 : width // 2] = 0.6
    return found


def opened(
    folder: Path, known: KnownImages, said: list[str], activation: Activation | None = None
) -> WrittenPredictions:
    return open_written(folder, known, Path("data"), activation=activation, note=said.append)


def with_background(values: Any) -> Any:
    return np.concatenate([1 - values.max(axis=0, keepdims=True), values])


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("one.npy", lambda v: v),
        ("one.npy", lambda v: v.astype(np.float16)),
        ("one.npy", lambda v: np.rint(v * 255).astype(np.uint8)),
        ("one.npy", lambda v: v[np.newaxis]),
        ("one.npy", lambda v: np.moveaxis(v, 0, 2)),
        ("one.npy", with_background),
        ("one.npy", lambda v: np.moveaxis(with_background(v), 0, 2)),
        ("a/one.npz", lambda v: {"probabilities": v, "other": v[0]}),
        ("one.NPZ", lambda v: {"x": v}),
        ("one.npy", lambda v: v * 1.005),
    ],
)
def test_planes_come_in_however_they_lie(
    name: str, change: Change, known: KnownImages, tmp_path: Path
) -> None:
    path, values = tmp_path / name, change(planes())
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        np.savez(file, **values) if isinstance(values, dict) else np.save(file, values)
    said: list[str] = []
    found = opened(tmp_path, known, said)
    assert (found.form, found.kind, list(found.keys)) == ("arrays", "semantic", ["a/one"])
    assert "0 cup, 1 fork, or these after the background" in said[0]
    prediction = found.predict("a/one")
    for label, plane in zip(LABELS.names, planes(), strict=True):
        np.testing.assert_array_equal(prediction.binary(label).full(SIZE_HW), plane > 0.5)
    assert prediction.masks["fork"][0][0] == pytest.approx(0.6, abs=0.01)


def test_planes_of_another_size_lie_over_the_whole_image(
    known: KnownImages, tmp_path: Path
) -> None:
    np.save(tmp_path / "two.npy", planes(20, 20))
    prediction = opened(tmp_path, known, []).predict("b/two")
    assert prediction.size_hw == SIZE_HW
    mask = prediction.binary("cup").full(SIZE_HW)
    assert mask[:, :28].all()
    assert not mask[:, 32:].any()


def test_the_folder_may_name_the_classes(known: KnownImages, tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", planes())
    (tmp_path / "classes.txt").write_text("fork\nmug\n")
    said: list[str] = []
    prediction = opened(tmp_path, known, said).predict("a/one")
    assert said == []
    np.testing.assert_array_equal(prediction.binary("fork").full(SIZE_HW), planes()[0] > 0.5)
    (tmp_path / "classes.txt").write_text("fork\nspoon\n")
    found = opened(tmp_path, known, said)
    assert "left out spoon" in said[0]
    assert found.classes == ("fork",)
    (tmp_path / "classes.txt").write_text("pan\nspoon\n")
    with pytest.raises(ValueError, match=r"classes\.txt: expected classes of .* found pan, spoon"):
        opened(tmp_path, known, said)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            planes() * 9 - 4,
            "expected probabilities from 0 to 1, found -4 to 3.2: .* --activation sigmoid",
        ),
        (planes() * np.nan, r"expected numbers, found 4800 that are none \(NaN\)"),
        (planes()[:, 0], r"expected planes \(2, H, W\) or \(H, W, 2\), .* found \(2, 60\)"),
        (np.zeros((7, 40, 60)), r"found \(7, 40, 60\)"),
        (np.float32(0.5), r"found \(\): a classes\.txt"),
        (np.zeros(0), r"found \(0,\): a classes\.txt"),
        (np.full((2, 40, 60), 7), "expected probabilities as floats .* found int64 from 7 to 7"),
        (np.array(["a"]), "expected probabilities, found <U1"),
        (np.array([{}], dtype=object), "expected arrays of numpy, found"),
    ],
)
def test_what_are_no_probabilities_is_told(
    values: Any, message: str, known: KnownImages, tmp_path: Path
) -> None:
    np.save(tmp_path / "one.npy", values)
    with pytest.raises(ValueError, match=rf"one\.npy: .*{message}"):
        opened(tmp_path, known, []).predict("a/one")


@pytest.mark.parametrize(
    ("activation", "change"),
    [
        ("sigmoid", lambda p: np.log(p / (1 - p))),
        ("sigmoid", lambda p: np.moveaxis(np.log(p / (1 - p)), 0, 2).astype(np.float16)),
        # Of a network whose first plane is the background's; what all have in common is nothing.
        ("softmax", lambda p: np.log(with_background(p / 2)) + 7),
        ("softmax", lambda p: {"logits": np.log(with_background(p / 2)), "labels": p}),
    ],
)
def test_logits_become_probabilities_where_it_is_said_how(
    activation: Activation, change: Change, known: KnownImages, tmp_path: Path
) -> None:
    low = np.clip(planes(), 1e-3, None)
    values = change(low)
    with (tmp_path / "one.npx").open("wb") as file:
        np.savez(file, **values) if isinstance(values, dict) else np.save(file, values)
    (tmp_path / "one.npx").rename(tmp_path / ("one.npz" if isinstance(values, dict) else "one.npy"))
    prediction = opened(tmp_path, known, [], activation).predict("a/one")
    expected = low if activation == "sigmoid" else with_background(low / 2)[1:]
    expected = expected / (1 if activation == "sigmoid" else with_background(low / 2).sum(axis=0))
    for label, plane in zip(LABELS.names, expected, strict=True):
        assert prediction.masks[label][0][0] == pytest.approx(plane.max(), abs=0.004)
        np.testing.assert_array_equal(prediction.binary(label).full(SIZE_HW), plane > 0.5)


def test_what_are_no_logits_is_told(known: KnownImages, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--activation softmax: expected arrays "):
        opened(tmp_path, known, [], "softmax")
    np.save(tmp_path / "one.npy", planes())
    with pytest.raises(ValueError, match=r"one\.npy: .* they look like probabilities already"):
        opened(tmp_path, known, [], "sigmoid").predict("a/one")
    np.save(tmp_path / "one.npy", planes()[:1])
    with pytest.raises(ValueError, match=r"one\.npy: .* found \(1, 40, 60\): a classes\.txt"):
        opened(tmp_path, known, [], "softmax").predict("a/one")
    (tmp_path / "classes.txt").write_text("fork")
    np.save(tmp_path / "one.npy", planes()[1:] - 4)
    with pytest.raises(ValueError, match=r"expected two planes at least, .* --activation sigmoid"):
        opened(tmp_path, known, [], "softmax").predict("a/one")
    (tmp_path / "classes.txt").unlink()
    endless = planes() - 4
    endless[0, 3, 3] = np.inf
    np.save(tmp_path / "one.npy", endless)
    assert opened(tmp_path, known, [], "sigmoid").predict("a/one").binary("cup").area == 1
    with pytest.raises(ValueError, match=r"one\.npy: expected logits, found infinite ones"):
        opened(tmp_path, known, [], "softmax").predict("a/one")
    np.save(tmp_path / "one.npy", planes() > 0)
    with pytest.raises(ValueError, match=r"one\.npy: expected logits, .* found bool"):
        opened(tmp_path, known, [], "sigmoid").predict("a/one")


def test_several_arrays_are_told(known: KnownImages, tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", a=planes(), b=planes())
    with pytest.raises(ValueError, match=r"expected one array, or 'probabilities', found a, b"):
        opened(tmp_path, known, []).predict("a/one")
    (tmp_path / "one.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match=r"one\.npz: expected arrays of numpy, found"):
        opened(tmp_path, known, []).predict("a/one")


def test_a_file_holds_an_array_of_each_image(known: KnownImages, tmp_path: Path) -> None:
    images = {"one": planes(), "b/two.png": 0.5 * planes()}
    np.savez(tmp_path / "all.npz", **images)
    # What lies beside it is no prediction.
    np.save(tmp_path / "losses.npy", np.zeros(3))
    for path in (tmp_path / "all.npz", folder_of(tmp_path, "folds", images)):
        said: list[str] = []
        found = opened(path, known, said)
        assert (found.form, sorted(found.keys)) == ("arrays", ["a/one", "b/two"])
        assert found.predict("a/one").binary("cup").area == 40 * 30
        assert found.predict("b/two").binary("cup").area == 0
        assert [line.partition(": planes")[0] for line in said] == [str(path)]
    logits = {name: np.log((values + 1e-6) / (1 - values)) for name, values in images.items()}
    np.savez(tmp_path / "logits.npz", **logits)
    found = opened(tmp_path / "logits.npz", known, [], "sigmoid")
    assert found.predict("a/one").binary("cup").area == 40 * 30
    with pytest.raises(ValueError, match=r"logits\.npz, 'one': .* --activation sigmoid"):
        opened(tmp_path / "logits.npz", known, [])


def folder_of(tmp_path: Path, name: str, images: dict[str, Any]) -> Path:
    """Write a file for each image, as folds would."""
    (tmp_path / name).mkdir()
    for number, (image, values) in enumerate(images.items()):
        np.savez(tmp_path / name / f"fold{number}.npz", **{image: values})
    return tmp_path / name


@pytest.mark.parametrize(
    ("arrays", "line"),
    [
        ({"one": planes(), "loss": planes()}, r"all\.npz/loss: expected an array called as"),
        ({"x": planes(), "y": planes()}, r"all\.npz: expected arrays .* called .* found x, y"),
        ({"one": planes(), "a/one": planes()}, r"all\.npz/a/one: expected one array of 'a/one'"),
        (
            {"x": np.stack([planes()] * 3)},
            r"all\.npz: .* a stack of .*\(3, 2, 40, 60\): numpy",
        ),
        ({"x": planes()}, r"all\.npz: expected a file called as an image"),
    ],
)
def test_images_of_a_file_have_names(
    arrays: dict[str, Any], line: str, known: KnownImages, tmp_path: Path
) -> None:
    np.savez(tmp_path / "all.npz", **arrays)
    with pytest.raises(ValueError, match=line):
        opened(tmp_path / "all.npz", known, [])
    if len(arrays) == 1:
        np.save(tmp_path / "all.npy", arrays["x"])
        with pytest.raises(ValueError, match=line.replace("npz", "npy")):
            opened(tmp_path / "all.npy", known, [])


def test_two_files_have_no_image_in_common(known: KnownImages, tmp_path: Path) -> None:
    np.savez(tmp_path / "fold0.npz", **{"one": planes(), "two": planes()})
    np.savez(tmp_path / "fold1.npz", two=planes())
    with pytest.raises(ValueError, match=r"fold1\.npz: .* one array of 'b/two', found .*fold0"):
        opened(tmp_path, known, [])


def numbers(*values: int) -> Any:
    """Return a map of class numbers: of the first one at the left, the others beside it."""
    found = np.zeros(SIZE_HW, np.int64)
    for place, value in enumerate(values):
        found[:, 10 * place : 10 * place + 10] = value
    return found


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
@pytest.mark.parametrize("together", [False, True])
def test_whole_numbers_in_one_plane_are_those_of_classes(
    dtype: type, together: bool, known: KnownImages, tmp_path: Path
) -> None:
    images = {"one": numbers(1, 2).astype(dtype), "two": numbers(0, 1)[np.newaxis].astype(dtype)}
    if together:
        np.savez(tmp_path / "all.npz", **images)
    else:
        for name, values in images.items():
            np.save(tmp_path / f"{name}.npy", values)
    said: list[str] = []
    found = opened(tmp_path, known, said)
    assert (found.form, len(said)) == ("index maps", 1)
    assert "1 cup, 2 fork" in said[0]
    for key, label, left in (("a/one", "cup", 0), ("a/one", "fork", 10), ("b/two", "cup", 10)):
        mask = found.predict(key).binary(label)
        assert (mask.x, mask.y, mask.pixels.shape, mask.area) == (left, 0, (40, 10), 400)
    assert not found.predict("b/two").binary("fork").area


def test_maps_of_another_size_lie_over_the_whole_image(known: KnownImages, tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", numbers(1, 2)[::2, ::2])
    found = opened(tmp_path, known, []).predict("a/one")
    assert found.binary("cup").area == pytest.approx(400, abs=20)
    np.save(tmp_path / "one.npy", numbers(1, 2).T)
    with pytest.raises(ValueError, match=r"one\.npy: .*\(40, 60\), found \(60, 40\): transpose"):
        opened(tmp_path, known, []).predict("a/one")
    np.save(tmp_path / "one.npy", numbers(1, 3))
    with pytest.raises(ValueError, match=r"one\.npy: expected numbers of classes, 0 to 2, found 3"):
        opened(tmp_path, known, []).predict("a/one")
    np.save(tmp_path / "two.npy", planes())
    with pytest.raises(ValueError, match=r"two\.npy: expected whole numbers \(H, W\) as in the"):
        opened(tmp_path, known, []).predict("b/two")


def test_of_one_class_numbers_are_of_objects(tmp_path: Path) -> None:
    cups = LabelSpace("cups", ("cup",))
    known = KnownImages({"one": Sample("one", Path("one.png"), SIZE_HW)}, cups, {0: "cup"})
    np.save(tmp_path / "one.npy", numbers(1, 2))
    found = opened(tmp_path, known, [])
    assert (found.form, len(found.predict("one").masks["cup"])) == ("maps of objects", 2)
    np.save(tmp_path / "one.npy", numbers(0, 1))
    found = opened(tmp_path, known, [])
    assert (found.form, found.predict("one").binary("cup").area) == ("arrays", 400)
    # Probabilities up to 255, as before.
    np.save(tmp_path / "one.npy", numbers(100, 200).astype(np.uint8))
    found = opened(tmp_path, known, [])
    assert (found.form, found.predict("one").binary("cup").area) == ("arrays", 400)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_whole_numbers_of_0_and_1_are_masks(
    dtype: type, known: KnownImages, tmp_path: Path
) -> None:
    np.save(tmp_path / "one.npy", (planes() > 0.7).astype(dtype))
    np.save(tmp_path / "two.npy", np.zeros((2, *SIZE_HW), dtype))
    found = opened(tmp_path, known, [])
    assert found.predict("a/one").binary("cup").area == 40 * 30
    assert not found.predict("b/two").masks
    # What is faint in one image is no mask where others tell that 255 is 1.
    np.save(tmp_path / "two.npy", np.full((2, *SIZE_HW), 200, dtype))
    found = opened(tmp_path, known, [])
    if dtype is np.uint8:
        assert not found.predict("a/one").binary("cup").area
        assert found.predict("b/two").binary("cup").area == 40 * 60
        return
    with pytest.raises(ValueError, match=r"two\.npy: .* masks of 0 and 1, found int64 from 200"):
        found.predict("b/two")


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
@pytest.mark.parametrize("first", [planes(), planes() > 0.7])
def test_masks_of_whole_numbers_among_others_are_told(
    first: Any, dtype: type, known: KnownImages, tmp_path: Path
) -> None:
    np.save(tmp_path / "one.npy", first)
    np.save(tmp_path / "two.npy", (planes() > 0.7).astype(dtype))
    found = opened(tmp_path, known, [])
    assert found.predict("a/one").binary("cup").area == 40 * 30
    with pytest.raises(ValueError, match=r"two\.npy: .* in all files, masks of 0 and 1, found"):
        found.predict("b/two")


def discs(count: int) -> Any:
    """Return that many discs with a number each, int32 (H, W)."""
    found = np.zeros((200, 300), np.int32)
    for number in range(count):
        cv2.circle(found, (8 + 14 * (number % 20), 8 + 14 * (number // 20)), 5, number + 1, -1)
    return found


@pytest.mark.parametrize("count", [3, 40, 250])
def test_numbers_of_objects_in_bytes_are_no_probabilities(count: int, tmp_path: Path) -> None:
    cells = LabelSpace("cells", ("cell",))
    known = KnownImages({"one": Sample("one", Path("one.png"), (200, 300))}, cells, {0: "cell"})
    np.save(tmp_path / "one.npy", discs(count).astype(np.uint8))
    found = opened(tmp_path, known, [])
    assert (found.form, len(found.predict("one").masks["cell"])) == ("maps of objects", count)
    # Blurred they are none, whether objects are many or one, and small.
    for sigma, values in ((1.5, discs(count)), (20, discs(1)), (0.5, discs(1))):
        sure = np.where(values > 0, 255, 0).astype(np.uint8)
        np.save(tmp_path / "one.npy", cv2.GaussianBlur(sure, (0, 0), sigma))
        assert opened(tmp_path, known, []).form == "arrays"
    np.save(tmp_path / "one.npy", discs(count).astype(np.float32))
    with pytest.raises(ValueError, match=r"one\.npy: .* objects have to be integers"):
        opened(tmp_path, known, [])


@pytest.mark.parametrize(
    ("name", "text", "shift"),
    [
        ("classes.txt", "fork\nmug\n", 0),
        ("classes.txt", "Background\nfork\ncup\n", 0),
        ("dataset.json", '{"labels": {"background": 0, "fork": 1, "cup": 2}}', 0),
        ("dataset.json", '{"labels": {"fork": 1, "cup": 2}}', 0),
        ("dataset.json", '{"labels": {"fork": 0, "cup": 1, "background": 2}}', -1),
    ],
)
def test_names_beside_arrays_are_those_of_planes_and_of_numbers(
    name: str, text: str, shift: int, known: KnownImages, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    values = numbers(1, 2) + shift
    np.save(tmp_path / "one.npy", np.where(values < 0, 2, values))
    found = opened(tmp_path, known, [])
    assert found.form == "index maps"
    assert [found.predict("a/one").binary(n).x for n in ("fork", "cup")] == [0, 10]
    swapped = planes()[::-1]
    with_names = "background" in text.casefold() and name == "classes.txt"
    np.save(tmp_path / "one.npy", with_background(swapped) if with_names else swapped)
    if shift:
        return  # three planes
    found = opened(tmp_path, known, [])
    assert found.form == "arrays"
    assert [found.predict("a/one").binary(n).area for n in ("cup", "fork")] == [1200, 600]


@pytest.mark.parametrize("name", ["/data/images/a/one.png", "C:\\data\\one.png", "images/a/one"])
def test_arrays_are_called_by_paths_of_any_machine(
    name: str, known: KnownImages, tmp_path: Path
) -> None:
    np.savez(tmp_path / "all.npz", **{name: planes(), "x/two": planes()})
    assert sorted(opened(tmp_path, known, []).keys) == ["a/one", "b/two"]


def test_a_broken_file_of_a_fold_is_not_called_foreign(known: KnownImages, tmp_path: Path) -> None:
    np.savez(tmp_path / "fold0.npz", one=planes())
    np.savez(tmp_path / "fold1.npz", two=planes())
    whole = (tmp_path / "fold1.npz").read_bytes()
    (tmp_path / "fold1.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"fold1\.npz: expected arrays of numpy, found: .*zip"):
        opened(tmp_path, known, [])
    np.savez(tmp_path / "fold1.npz")
    with pytest.raises(ValueError, match=r"fold1\.npz: expected one array, .* found none"):
        opened(tmp_path, known, [])


def test_what_lies_in_the_tree_of_hand_radiographs_is_no_data_set(tmp_path: Path) -> None:
    key = "train/DCM/ID001/image1"
    known = KnownImages({key: Sample(key, Path("x.png"), SIZE_HW)}, LABELS, {0: "cup", 1: "fork"})
    (tmp_path / key).parent.mkdir(parents=True)
    np.save(tmp_path / f"{key}.npy", planes())
    assert opened(tmp_path, known, []).form == "arrays"
    (tmp_path / f"{key}.npy").unlink()
    cv2.imwrite(str(tmp_path / f"{key}.png"), numbers(1, 2).astype(np.uint8))
    assert opened(tmp_path, known, []).form == "index maps"


def test_of_class_numbers_there_are_no_logits(known: KnownImages, tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", numbers(1, 2)[..., np.newaxis])
    assert opened(tmp_path, known, []).form == "index maps"
    with pytest.raises(ValueError, match=r"--activation softmax: .* numbers of classes want none"):
        opened(tmp_path, known, [], "softmax")
    np.save(tmp_path / "one.npy", numbers(1, 2).astype(np.float32))
    with pytest.raises(ValueError, match=r"one\.npy: .* in one plane have to be integers"):
        opened(tmp_path, known, []).predict("a/one")


def test_names_beside_maps_are_those_of_their_probabilities(
    known: KnownImages, tmp_path: Path
) -> None:
    (tmp_path / "classes.txt").write_text("fork\ncup")
    cv2.imwrite(str(tmp_path / "one.png"), numbers(2).astype(np.uint8))
    found = opened(tmp_path, known, [])
    assert (found.form, found.predict("a/one").binary("cup").area) == ("index maps", 400)
    # As nnU-Net writes them, what is of no class first.
    np.savez(tmp_path / "one.npz", probabilities=with_background(planes()[::-1]))
    found = opened(tmp_path, known, [])
    assert [found.predict("a/one").binary(n).area for n in ("cup", "fork")] == [1200, 600]
    (tmp_path / "classes.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"classes\.txt: expected classes, one a line, found none"):
        opened(tmp_path, known, [])


def save_stack(path: Path, **arrays: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("names", [["one.png", "set/b/two.png"], ["one", "two"]])
@pytest.mark.parametrize("text", [str, bytes])
@pytest.mark.parametrize("stacked", ["preds", "probabilities"])
@pytest.mark.parametrize("is_folder", [False, True])
def test_a_stack_has_the_names_of_its_images_beside_it(
    names: list[str],
    text: type,
    stacked: str,
    is_folder: bool,
    known: KnownImages,
    tmp_path: Path,
) -> None:
    ids = np.array([n.encode() if text is bytes else n for n in names])
    path = save_stack(
        tmp_path / "oof/all.npz", **{stacked: np.stack([planes(), planes() * 0]), "ids": ids}
    )
    found = opened(path.parent if is_folder else path, known, [])
    assert sorted(found.keys) == ["a/one", "b/two"]
    first, second = found.predict("a/one"), found.predict("b/two")
    np.testing.assert_array_equal(first.binary("cup").full(SIZE_HW), planes()[0] > 0.5)
    assert not second.binary("cup").full(SIZE_HW).any()


def test_a_stack_of_numbers_has_the_names_of_its_images_and_classes(
    known: KnownImages, tmp_path: Path
) -> None:
    numbers = np.zeros((2, *SIZE_HW), np.int64)
    numbers[1, :10] = 1
    path = save_stack(
        tmp_path / "maps.npz",
        pred=numbers,
        image=np.array(["one", "two"]),
        class_names=np.array(["background", "fork", "cup"]),
    )
    found = opened(path, known, [])
    assert found.form == "index maps"
    prediction = found.predict("b/two")
    np.testing.assert_array_equal(prediction.binary("fork").full(SIZE_HW), numbers[1] == 1)
    assert not prediction.binary("cup").full(SIZE_HW).any()


def test_arrays_may_name_their_classes(known: KnownImages, tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_stack(
            tmp_path / f"{name}.npz", probabilities=planes(), classes=np.array(["fork", "mug"])
        )
    said: list[str] = []
    prediction = opened(tmp_path, known, said).predict("a/one")
    assert said == []
    np.testing.assert_array_equal(prediction.binary("fork").full(SIZE_HW), planes()[0] > 0.5)
    save_stack(tmp_path / "two.npz", probabilities=planes(), classes=np.array(["mug", "fork"]))
    with pytest.raises(ValueError, match=r"two\.npz: expected the classes that .*one\.npz names"):
        opened(tmp_path, known, said)
    # What lies beside counts.
    (tmp_path / "classes.txt").write_text("cup\nfork\n")
    prediction = opened(tmp_path, known, said).predict("b/two")
    np.testing.assert_array_equal(prediction.binary("cup").full(SIZE_HW), planes()[0] > 0.5)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"p": np.stack([planes()] * 3), "ids": np.array(["one", "two"])},
            r"expected arrays of 2 images, as many as it names, found p \(3, 2, 40, 60\)",
        ),
        (
            {"p": np.stack([planes()] * 2), "ids": np.array(["one", "one"])},
            "expected one array of 'a/one'",
        ),
        (
            {"p": np.stack([planes()] * 2), "ids": np.array(["one", "three"])},
            "three: expected an array called as an image of the data set is",
        ),
        (
            {"p": np.stack([planes()] * 2), "ids": np.array(["one", "two"], dtype=object)},
            r"found objects of Python in 'ids', .* numpy\.array\(names, dtype=str\)",
        ),
        (
            {"p": np.stack([planes()] * 2), "ids": np.array(["three", "four"])},
            "found a stack of them without names",
        ),
        (
            {
                "p": np.stack([planes()] * 2),
                "truth": np.stack([planes()] * 2),
                "ids": np.array(["one", "two"]),
            },
            "expected one array, or 'probabilities', found p, truth",
        ),
    ],
)
def test_a_stack_that_nobody_can_tell_apart_is_refused(
    arrays: dict[str, Any], message: str, known: KnownImages, tmp_path: Path
) -> None:
    path = save_stack(tmp_path / "all.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        opened(path, known, []).predict("a/one")


def test_logarithms_of_probabilities_are_no_logits_of_single_classes(
    known: KnownImages, tmp_path: Path
) -> None:
    logits = with_background(planes()) * 9 - 4
    total = np.exp(logits).sum(axis=0)
    np.save(tmp_path / "one.npy", logits - np.log(total))
    with pytest.raises(ValueError, match=r"log_softmax.*--activation softmax"):
        opened(tmp_path, known, [], "sigmoid")
    mask = opened(tmp_path, known, [], "softmax").predict("a/one").binary("cup").full(SIZE_HW)
    np.testing.assert_array_equal(mask, (np.exp(logits) / total)[1] > 0.5)
