import pytest

import configs
from zoo.cli.listing import lines
from zoo.cli.options import Topic


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("configs", "smp unet_resnet34"),
        ("families", "maskrcnn"),
        ("losses", "focal_tversky"),
        ("optimizers", "adamp"),
        ("schedules", "cosine_restarts"),
        (
            "transforms",
            "CutMix           Put a rectangle of another sample, at its own place, into a",
        ),
        ("formats", "datumaro"),
        ("configs", "fusion staple"),
        ("fusions", "hybrid"),
        ("labels", "hand_bones   29 classes, groups fingers, carpals, forearm"),
    ],
)
def test_a_topic_is_listed(topic, expected):
    assert any(line.startswith(expected) for line in "\n".join(lines(topic)).splitlines())


def test_every_topic_of_the_command_has_a_list():
    assert {topic.value for topic in Topic} - {"models"} <= {
        *("configs", "families", "losses", "optimizers", "schedules", "formats", "fusions"),
        *("labels", "transforms"),
    }


@pytest.mark.slow
def test_memory_is_listed_by_config(monkeypatch):
    # One config a family, for the time it takes.
    monkeypatch.setattr(
        configs, "names", lambda kind: ["laptop"] if kind in ("smp", "yolo") else []
    )
    head, *found = [line.split() for line in lines("memory")]
    assert head[-2:] == ["about", "GB"]
    assert [line[:2] for line in found] == [["smp", "laptop"], ["yolo", "laptop"]]
    assert all(line[2:5] == ["256", "x", "256"] and line[5] == "8" for line in found)
    assert all(1.2 < float(line[6]) < 4 for line in found)
