"""The hybrid rule as a YAML file that a person reads and edits."""

import pytest
import yaml

from fusion.evidence import ZONES, Reliability
from fusion.hybrid import ClassWeights, Hybrid
from fusion.rule_file import dump_rule, read_rule

# Names that YAML would read as something else, or not at all.
ODD = ("yes", "1", "<b>", "a: b", "#5", "it's", "null", "- x", "0x1F", "1e3", "[x]", "Ünet", "a...")


def row(*values):
    return dict(zip(ZONES, values, strict=True))


RULES = {
    "empty": Hybrid(),
    "sources only": Hybrid(("unet", "yolo"), recover=False),
    "whole": Hybrid(
        ("unet", "yolo"),
        {
            "Pisiform": ClassWeights(-0.25, row((0.5, 0.5), (0.0, 1.25), (0.75, 0.125))),
            "Ulna": ClassWeights.single(1, ("unet", "yolo")),
        },
        {"yolo": Reliability((0.25, 0.5, 1.0), (0.5, 0.5, 0.9375))},
    ),
    "odd names": Hybrid(
        ODD,
        {name: ClassWeights(0.5, dict.fromkeys(ZONES, (0.25,) * len(ODD)), name) for name in ODD},
        {name: Reliability((0.5,), (0.5,)) for name in ODD},
    ),
}


def load(tmp_path, text):
    path = tmp_path / "rule.yaml"
    path.write_text(text, encoding="utf-8")
    return read_rule(path)


@pytest.mark.parametrize("name", RULES)
def test_what_is_dumped_is_loaded(tmp_path, name):
    rule = RULES[name]
    notes = {label: f"note of {label}: 1, #2" for label in rule.classes}
    assert load(tmp_path, dump_rule(rule)) == rule
    assert load(tmp_path, dump_rule(rule, notes)) == rule


def test_the_file_is_for_people():
    text = dump_rule(RULES["whole"], {"Pisiform": "held-out Dice .9"})
    assert text.startswith("method: hybrid\nsources: [unet, yolo]\nrecover: true\n")
    assert (
        "  Pisiform: # held-out Dice .9\n    bias: -0.2500\n    alone: [0.5000, 0.5000]\n" in text
    )
    assert "    keeps: yolo\n" in text


def test_four_decimals_are_kept(tmp_path):
    weights = ClassWeights(1 / 3, row((2 / 3,), (1e-9,), (123.456789,)))
    found = load(tmp_path, dump_rule(Hybrid(("a",), {"3": weights}))).classes["3"]
    assert found.bias == pytest.approx(1 / 3, abs=1e-4)
    assert found.weights["outline"] == (123.4568,)


GOOD = """
method: hybrid
sources: [unet, yolo]
recover: true
reliability:
  yolo: {scores: [0.1, 0.9], values: [0.5, 0.9]}
classes:
  Pisiform:
    bias: 0.1
    alone: [1, 0]
    shared: [0, 1]
    outline: [0.5, 0.5]
"""
EDITS = {
    "not YAML": ("sources: [unet, yolo]", "sources: [unet", "expected YAML"),
    "another method": ("method: hybrid", "method: most", "'method': expected one of"),
    "unknown key": ("recover: true", "recovers: true", "expected 'method: hybrid' and keys"),
    "sources as text": ("[unet, yolo]", "unet", "'sources': expected a list, found 'unet'"),
    "no sources": ("sources: [unet, yolo]", "", "'sources': expected a list, found None"),
    "recover as text": ("recover: true", "recover: 'no'", "'recover': expected a bool"),
    "misspelt zone": ("shared:", "share:", "classes: Pisiform: expected the keys"),
    "unknown entry": ("bias: 0.1", "bias: 0.1\n    x: 1", "classes: Pisiform: expected the keys"),
    "no bias": ("bias: 0.1", "", "classes: Pisiform: expected the keys"),
    "bias as text": ("bias: 0.1", "bias: much", "classes: Pisiform: expected numbers.*much"),
    "infinite": ("bias: 0.1", "bias: .inf", "classes: Pisiform: .*expected finite numbers"),
    "row as number": ("alone: [1, 0]", "alone: 1", "classes: Pisiform: expected numbers"),
    "short row": ("alone: [1, 0]", "alone: [1]", "Pisiform alone: expected 2 weights"),
    "other source": ("  yolo: {", "  mask: {", "reliability of sources that are not there.*mask"),
    "falling": ("values: [0.5, 0.9]", "values: [0.9, 0.5]", "reliability: yolo: .*never fall"),
    "no values": (", values: [0.5, 0.9]", "", "reliability: yolo: expected the keys"),
    "value as text": ("[0.5, 0.9]", "[a, b]", "reliability: yolo: expected rows of numbers"),
    "empty class": ("    bias: 0.1\n    alone: [1, 0]\n    shared: [0, 1]\n    outline: [0.5, 0.5]",
                    "", "classes: Pisiform: expected the keys .* found None"),
    "code": ("recover: true", "recover: !!python/object/apply:os.getcwd []", "expected YAML"),
}  # fmt: skip


def test_a_rule_written_by_hand_is_loaded(tmp_path):
    rule = load(tmp_path, GOOD)
    assert rule.sources == ("unet", "yolo")
    assert rule.classes["Pisiform"].weights == row((1, 0), (0, 1), (0.5, 0.5))
    shortest = "method: hybrid\nsources: [1, 2]\nclasses: {}\n"
    assert load(tmp_path, shortest) == Hybrid(("1", "2"))


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_that_goes_wrong_is_named(tmp_path, edit):
    before, after, message = EDITS[edit]
    assert before in GOOD
    with pytest.raises(ValueError, match=rf"rule\.yaml: .*{message}") as error:
        load(tmp_path, GOOD.replace(before, after, 1))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "text", "method: hybrid"])
def test_other_files_are_refused(tmp_path, text):
    with pytest.raises(ValueError, match=r"rule\.yaml: "):
        load(tmp_path, text)


def test_loading_runs_no_code(tmp_path):
    mark = tmp_path / "mark"
    call = f"!!python/object/apply:os.mkdir ['{mark}']"
    code = f"method: hybrid\nsources: {call}\nclasses: {{}}\n"
    with pytest.raises(ValueError, match="expected YAML"):
        load(tmp_path, code)
    assert not mark.exists()


def test_the_dump_is_plain_yaml():
    assert yaml.safe_load(dump_rule(RULES["whole"]))["classes"]["Ulna"]["keeps"] == "yolo"
