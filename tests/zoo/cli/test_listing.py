import pytest

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
        ("formats", "datumaro"),
        ("fusions", "hybrid"),
    ],
)
def test_a_topic_is_listed(topic, expected):
    assert any(line.startswith(expected) for line in "\n".join(lines(topic)).splitlines())


def test_every_topic_of_the_command_has_a_list():
    assert {topic.value for topic in Topic} - {"models"} <= {
        *("configs", "families", "losses", "optimizers", "schedules", "formats", "fusions")
    }
