"""Plans: what fits into the time and the memory, for the data as they are."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

from converters.splits.split import make_split
from converters.types import Sample
from zoo.phantom.config import PhantomConfig
from zoo.phantom.tree import write_phantom
from zoo.pipeline import plan as planning
from zoo.pipeline.plan import plan
from zoo.pipeline.recipe import Recipe
from zoo.pipeline.survey.closeup import Closeup
from zoo.pipeline.survey.facts import DataFacts
from zoo.pipeline.survey.profile import DataProfile, look
from zoo.pipeline.survey.rates import Cost, Machine
from zoo.source import DataSource

FACTS = DataFacts(True, False)
PROFILE = DataProfile(40, 20, 10, 1000, 0.05, 0.0, 400, 5, False, FACTS)
LAPTOP, V100S = Machine(2), Machine(32, 4, 32e9, "V100")
DATA = DataSource(Path("nowhere"), "coco")


@pytest.fixture
def costs(monkeypatch):
    """Seconds an image of each family; memory by the size that is asked for."""
    pytest.importorskip("ultralytics")
    found = {"huggingface": 0.05, "smp": 0.05, "segformer": 0.05, "yolo": 0.02}

    def cost(family, config, changes, data, machine):
        size = next(word for word in changes if word.startswith(("size=", "imgsz=")))
        side = int(size.partition("=")[2].strip("[]").split(",")[0])
        return Cost(found[family], 40e9 * (side / 1024) ** 2 if machine.gpus else None)

    monkeypatch.setattr(planning, "cost_of", cost)
    return found


def hours_of(recipe):
    return sum(model.hours for model in recipe.models.values())


@pytest.mark.parametrize("hours", [0.3, 0.5, 1])
def test_a_plan_fits_into_the_time(costs, hours):
    recipe = plan(DATA, PROFILE, LAPTOP, hours)
    assert 0.3 * hours < hours_of(recipe) < hours
    assert recipe.hours == hours
    assert list(recipe.models) == ["upernet", "fpn", "yolo"]


def test_where_few_images_are_seen_smaller_batches_make_more_steps(costs):
    costs["smp"] = 0.12

    def planned(hours):
        models = plan(DATA, replace(PROFILE, images=124, patients=124), LAPTOP, hours).models
        return {
            n: (m.changes["batch"], m.changes["epochs"] * 124 * 2 / 3) for n, m in models.items()
        }

    for hours in (0.5, 1, 2, 4):
        for name, (batch, seen) in planned(hours).items():
            assert 3 <= batch <= 8, (hours, name)
            # As large as makes the steps, or the smallest or the largest that there is.
            assert seen / batch >= 400 or batch == 3, (hours, name)
            assert seen / (batch + 1) < 400 or batch == 8, (hours, name)
    assert planned(0.5)["fpn"][0] < planned(1)["fpn"][0] < planned(4)["fpn"][0] == 8
    assert planned(0.5)["fpn"][0] < planned(0.5)["yolo"][0]


def test_smaller_batches_are_paid_for(costs, monkeypatch):
    def cost(family, config, changes, data, machine):
        batch = next(int(word.partition("=")[2]) for word in changes if word.startswith("batch="))
        return Cost(costs[family] * (1 + 1 / batch))

    monkeypatch.setattr(planning, "cost_of", cost)
    for hours in (0.3, 0.5, 1):
        assert hours_of(plan(DATA, PROFILE, LAPTOP, hours)) < 0.8 * hours


def test_of_many_images_an_encoder_that_has_learned_sees_more(costs, monkeypatch):
    monkeypatch.setattr(planning, "_check_weights", lambda changes, machine: None)
    given = {"encoder": "tu-tf_efficientnet_lite0", "encoder_weights": "x.pth"}
    many = replace(PROFILE, images=500, patients=500)
    plain, learned = (plan(DATA, many, LAPTOP, 1, "", changes) for changes in ({}, given))
    assert list(plain.models) == ["upernet", "fpn", "yolo"]
    assert list(learned.models) == ["fpn", "yolo"]
    epochs = [recipe.models["fpn"].changes["epochs"] for recipe in (plain, learned)]
    assert epochs[0] < 20
    assert 1.9 * epochs[0] < epochs[1] < 2.3 * epochs[0]
    assert hours_of(learned) < 0.8
    yolo = [recipe.models["yolo"].changes["epochs"] for recipe in (plain, learned)]
    assert yolo[1] == pytest.approx(yolo[0], abs=1)
    # Where they are few, and where nothing finds objects, the other network stays.
    assert list(plan(DATA, PROFILE, LAPTOP, 1, "", given).models) == ["upernet", "fpn", "yolo"]
    exclusive = plan(DATA, replace(many, exclusive=True), LAPTOP, 1, "", given)
    assert list(exclusive.models) == ["upernet", "fpn"]


CLOSEUP = Closeup(("left", "right"), 60, 140, 480, 1000, 2.5)


def test_thin_classes_have_a_second_stage(costs):
    thin = replace(PROFILE, closeup=CLOSEUP)
    plain, closer = (plan(DATA, profile, LAPTOP, 0.5) for profile in (PROFILE, thin))
    assert plain.second_stages == {}
    assert list(closer.models) == list(plain.models)
    (stage,) = closer.second_stages.values()
    assert (stage.of, stage.crop, stage.margin) == ("fpn", ("left", "right"), 60)
    height, width = stage.changes["size"]
    assert (height, width) == (96, 320)
    assert stage.changes["batch"] >= 3
    # It has its part of the time, and all together no more.
    assert stage.changes["epochs"] >= 8
    for name, model in closer.models.items():
        assert model.changes["epochs"] < plain.models[name].changes["epochs"]
    hours = hours_of(closer) + stage.hours
    assert hours == pytest.approx(hours_of(plain), rel=0.1)
    assert Recipe.model_validate(closer.model_dump()) == closer


@pytest.mark.parametrize("hours", [0.1, 0.15])
def test_without_the_time_nothing_is_seen_larger(costs, hours):
    thin = replace(PROFILE, closeup=CLOSEUP)
    assert plan(DATA, thin, LAPTOP, hours) == plan(DATA, PROFILE, LAPTOP, hours)


def test_a_gpu_shows_the_whole_image_as_it_is(costs):
    assert plan(DATA, replace(PROFILE, closeup=CLOSEUP), V100S, None).second_stages == {}


def test_half_an_hour_is_usual_without_a_gpu(costs):
    assert plan(DATA, PROFILE, LAPTOP, None) == plan(DATA, PROFILE, LAPTOP, 0.5)


def test_yolo_is_planned_where_it_has_the_steps_to_learn(costs):
    costs["yolo"] = 0.2
    assert list(plan(DATA, PROFILE, LAPTOP, 0.5).models) == ["upernet", "fpn"]


def test_one_label_a_pixel_is_not_for_objects(costs):
    assert "yolo" not in plan(DATA, replace(PROFILE, exclusive=True), LAPTOP, 0.5).models


def test_where_time_is_short_folds_go_first_and_then_models(costs):
    two = plan(DATA, PROFILE, LAPTOP, 0.06)
    assert two.split.folds == 2
    costs["yolo"] = 5.0
    assert list(plan(DATA, PROFILE, LAPTOP, 0.2).models) == ["upernet", "fpn"]


def test_the_folds_that_a_data_set_brings_are_planned_for(costs, tmp_path):
    keys = [f"image{number}" for number in range(10)]
    samples = [Sample(key, tmp_path / f"{key}.png", (8, 8), group=key[:-1]) for key in keys]
    samples = [replace(one, group=str(number // 2)) for number, one in enumerate(samples)]
    make_split(samples, folds=5).save(tmp_path / "split.json")
    brought, dealt = (
        plan(DataSource(path, "coco"), PROFILE, LAPTOP, 0.5) for path in (tmp_path, DATA.path)
    )
    assert brought.split.file == str(tmp_path / "split.json")
    epochs = [recipe.models["fpn"].changes["epochs"] for recipe in (brought, dealt)]
    assert epochs[0] < epochs[1]
    assert hours_of(brought) < 0.5


def test_small_objects_ask_for_large_images(costs):
    def side(least):
        recipe = plan(DATA, replace(PROFILE, least=least), LAPTOP, 1)
        return recipe.models["fpn"].changes["size"]

    assert side(0.2) == [256, 256]
    assert side(0.033) == [320, 320]
    # A laptop's limit.
    assert side(0.001) == [384, 384]


def test_a_gpu_is_given_what_fits_its_memory(costs):
    recipe = plan(DATA, PROFILE, V100S, None)
    assert list(recipe.models) == ["unet", "segformer", "yolo"]
    assert recipe.models["unet"].changes["size"] == [512, 512]
    assert recipe.models["unet"].memory == 10e9
    assert recipe.split.folds == 5


def test_an_encoder_is_that_of_all_smp_networks(costs):
    costs["yolo"] = 0.2
    encoder = {"encoder": "tu-tf_efficientnet_lite0", "encoder_weights": "imagenet"}
    recipe = plan(DATA, PROFILE, LAPTOP, 0.5, "", encoder)
    for name, model in recipe.models.items():
        assert (encoder.items() <= model.changes.items()) == (model.family == "smp"), name
    assert list(recipe.models) == ["upernet", "fpn"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.pt", None, "gone.pt: expected a file of weights, found none"),
        ("empty.pt", b"", "found another: an empty file"),
        ("pickle.pt", pickle.dumps({"a": Path("x")}), "which is not run"),
        ("folder", None, "encoder_weights '.*folder': expected a file, found a folder"),
    ],
)
def test_weights_that_are_none_are_told_before_hours_of_work(
    name, content, message, costs, tmp_path
):
    (tmp_path / "folder").mkdir()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    encoder = {"encoder": "resnet18", "encoder_weights": str(tmp_path / name)}
    # Also where there is no time for the network that would take them.
    for hours in (0.01, 1):
        with pytest.raises(ValueError, match=message):
            plan(DATA, PROFILE, LAPTOP, hours, "", encoder)
    # On paper they may lie elsewhere.
    assert plan(DATA, PROFILE, V100S, 1, "", encoder).models


@pytest.mark.parametrize("hours", [float("inf"), float("nan")])
def test_hours_are_a_number(costs, hours):
    with pytest.raises(ValueError, match="--hours: expected a number of hours, found"):
        plan(DATA, PROFILE, LAPTOP, hours)


def test_one_patient_is_too_few():
    with pytest.raises(ValueError, match="two patients at least, found 1"):
        plan(DATA, replace(PROFILE, patients=1), LAPTOP, 1)


@pytest.mark.parametrize("text", ["V100", "0xV100", "4xT4", "4 x V100"])
def test_a_machine_that_nobody_knows_is_refused(text):
    with pytest.raises(ValueError, match="--machine: expected such as 1xV100"):
        Machine.parse(text)


def test_four_v100s():
    found = Machine.parse("4xV100")
    assert (found.gpus, found.memory, found.trainings) == (4, 32e9, 4)


@pytest.mark.slow
def test_what_is_seen_of_a_phantom(tmp_path):
    tree = tmp_path / "hands"
    write_phantom(tree, PhantomConfig(people=2, test_people=1, size=256))
    found = look(DataSource.open(tree))
    assert (found.images, found.patients, found.test_images, found.side) == (4, 2, 2, 256)
    assert (found.objects, found.classes, found.repeated) == (4 * 29, 29, 0)
    assert found.facts.has_test
    assert 0.01 < found.least < 0.1
