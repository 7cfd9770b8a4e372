"""What notebooks show of samples and predictions: small, coloured, escaped, never an error."""

import re
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
from shapely.geometry import Polygon, box

import converters
import fusion
from converters.masks import rasterize_labels
from converters.pictures.colors import class_colors, css
from converters.pictures.figure import LONGEST_PX, MOST_BYTES, colors_of, small_jpeg
from converters.types import Instance, LabelSpace, Sample
from fusion.types import Prediction, SoftMask

HANDS = LabelSpace.load("hand_bones")
SECONDS = 20.0  # It takes about one; the machine may be in other use.


def decoded(picture):
    return cv2.imdecode(np.frombuffer(picture.jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def write_image(folder, pixels, name="a.png"):
    cv2.imwrite(str(folder / name), pixels)
    return folder / name


@pytest.fixture
def sample(tmp_path):
    """Two classes that overlap at a corner, on a non-square image."""
    image = write_image(tmp_path, np.full((120, 200), 90, np.uint8))
    shapes = (
        Instance("Radius", box(10, 10, 90, 80)),
        Instance(
            "Ulna", Polygon(box(60, 60, 190, 110).exterior, [box(120, 80, 150, 100).exterior])
        ),
    )
    return Sample("train/a", image, (120, 200), shapes)


def predict(sample):
    masks = {}
    for name, mask in rasterize_labels(sample.instances, sample.size_hw).items():
        masks[name] = ((1.0, SoftMask(mask.box_xywh, mask.pixels * np.uint8(255))),)
    return Prediction(sample.key, sample.size_hw, "semantic", masks)


def test_a_sample_shows_itself_in_the_reports_colours(sample):
    found = converters.show(sample)
    colors = class_colors(HANDS.names)
    order = [name for name in HANDS.names if name in ("Radius", "Ulna")]
    assert found.legend == tuple((name, colors[name]) for name in order)
    assert sample._repr_html_() == found._repr_html_()
    for name in order:
        assert f"background:{css(colors[name])}" in found._repr_html_()
        assert f"&nbsp;{name}" in found._repr_html_()
    pixels = decoded(found)
    scale = pixels.shape[1] / 200
    assert pixels.shape[0] == round(120 * scale)

    def mean_at(x, y):
        return pixels[round(y * scale) - 2 : round(y * scale) + 2, round(x * scale) - 2 :][
            :, :4
        ].mean((0, 1))

    ground = mean_at(5, 115)
    radius, ulna, hole = mean_at(40, 40), mean_at(160, 105), mean_at(135, 90)
    for got, name in ((radius, "Radius"), (ulna, "Ulna")):
        # A fill is a step from the image toward the class's colour.
        toward = np.array(colors[name]) - ground
        assert np.dot(got - ground, toward) / np.dot(toward, toward) == pytest.approx(
            0.38, abs=0.08
        )
    assert np.abs(hole - ground).max() < 6


def test_names_are_escaped(tmp_path):
    image = write_image(tmp_path, np.zeros((20, 20), np.uint8))
    bad = '<script>alert("x")</script>'
    sample = Sample("a<b>&", image, (20, 20), (Instance(bad, box(2, 2, 9, 9)),))
    shown = sample._repr_html_()
    assert "<script" not in shown
    assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;" in shown
    assert "<b>a&lt;b&gt;&amp;</b>" in shown
    assert 'alt="a&lt;b&gt;&amp;"' in shown


def test_an_image_that_is_gone_is_no_error(sample):
    sample.image.unlink()
    found = converters.show(sample)
    assert "a.png" in found.note
    assert "a.png" in sample._repr_html_()
    assert len(found.legend) == 2


def test_a_prediction_shows_itself_and_on_its_image(sample):
    prediction = predict(sample)
    alone, on_image = fusion.show(prediction), fusion.show(prediction, sample, HANDS)
    assert prediction._repr_html_() == alone._repr_html_()
    assert alone.legend == on_image.legend == converters.show(sample, HANDS).legend
    assert decoded(alone)[-2:, :40].max() < 12
    # What is predicted is the truth here.
    assert np.array_equal(decoded(on_image), decoded(converters.show(sample, HANDS)))


def test_a_prediction_of_another_image_is_refused(sample):
    other = replace(sample, key="train/b")
    with pytest.raises(ValueError, match="expected the sample 'train/a'"):
        fusion.show(predict(sample), other)
    with pytest.raises(ValueError, match=r"expected \(120, 200\) pixels"):
        fusion.show(predict(sample), replace(sample, size_hw=(60, 200), instances=()))


def test_nothing_on_it_is_shown_too(sample):
    empty = replace(sample, instances=())
    assert converters.show(empty).legend == ()
    assert fusion.show(Prediction("a", (5, 3), "semantic", {})).legend == ()


@pytest.mark.slow
def test_the_largest_is_small_and_quick(tmp_path):
    rng = np.random.default_rng(0)
    image = write_image(tmp_path, rng.integers(0, 256, (2048, 2048, 3), dtype=np.uint8))
    shapes = []
    for i, name in enumerate(HANDS.names):
        x, y = 60 + 330 * (i % 6), 60 + 380 * (i // 6)
        shapes.append(Instance(name, box(x, y, x + 360, y + 420)))
    sample = Sample("noise", image, (2048, 2048), tuple(shapes))
    started = time.perf_counter()
    found = converters.show(sample, HANDS)
    html = found._repr_html_()
    shown = fusion.show(predict(sample), sample, HANDS)
    assert time.perf_counter() - started < 2 * SECONDS
    assert max(decoded(found).shape) == LONGEST_PX
    assert len(found.legend) == 29
    assert max(len(found.jpeg), len(shown.jpeg)) <= MOST_BYTES
    assert len(html) < MOST_BYTES * 4 / 3 + 6000


def test_noise_of_all_colours_is_made_to_fit():
    noise = np.random.default_rng(1).random((LONGEST_PX, LONGEST_PX, 3)).astype(np.float32)
    assert len(small_jpeg(noise)) <= MOST_BYTES


def test_unknown_classes_are_coloured_by_their_sorted_names():
    names = ["part-10", "part-2", "x"]
    assert colors_of(names) == class_colors(["part-2", "part-10", "x"])
    assert colors_of(reversed(names)) == colors_of(names)
    assert colors_of(["Ulna"])["Ulna"] == class_colors(HANDS.names)["Ulna"]
    assert colors_of([]) == {}


def test_a_picture_is_saved(sample, tmp_path):
    found = converters.show(sample)
    found.save(tmp_path / "a.jpg")
    assert (tmp_path / "a.jpg").read_bytes() == found.jpeg
    assert re.search(r'src="data:image/jpeg;base64,[A-Za-z0-9+/=]+"', found._repr_html_())
