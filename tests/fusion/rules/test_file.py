"""Rules as YAML files that a person reads and edits."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import yaml

import configs
from converters.types import LabelSpace
from fusion import Hybrid, Mean, Vote
from fusion.rules.base import WrappedRule
from fusion.rules.classwise import Classwise
from fusion.rules.evidence import ZONES
from fusion.rules.file import AROUND, dump_rule, load_rule, read_rule
from fusion.rules.hybrid import ClassWeights
from fusion.rules.pooling import Weighted

# Names that YAML would read as something else, or not at all.
ODD = ("yes", "1", "<b>", "a: b", "#5", "it's", "null", "- x", "0x1F", "1e3", "[x]", "Ünet", "a...")
PISIFORM = ClassWeights(-0.25, dict.fromkeys(ZONES, (0.5, 1 / 3, 1e-9)))
RULES = {
    "empty": Hybrid(),
    "sources only": Hybrid(("unet", "yolo"), recover=False),
    "hybrid": Hybrid(
        ("unet", "yolo"),
        {"Pisiform": PISIFORM, "Ulna": ClassWeights.single(1, ("unet", "yolo"))},
    ),
    "odd names": Hybrid(ODD, {name: ClassWeights.single(2, ODD) for name in ODD}),
    "odd weights": Weighted(weights=dict.fromkeys(ODD, 0.1), classes={n: {n: 2.0} for n in ODD}),
    "odd votes": Vote(votes=(ODD[:3], ("yes", ODD[3:])), k=2),
    "nested": Classwise(("yes", "b"), {"3": Mean(("b",)), "Ulna": Hybrid()}, Vote(prefer=("b",))),
}


def read(tmp_path, text):
    path = tmp_path / "rule.yaml"
    path.write_text(text, encoding="utf-8")
    return read_rule(path)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.slow
def test_what_is_written_is_read_to_the_bit(tmp_path, name):
    rule = RULES[name]
    notes = {label: f"note of {label}: 1,\n#2" for label in getattr(rule, "classes", {})}
    assert read(tmp_path, dump_rule(rule)) == rule
    assert read(tmp_path, dump_rule(rule, notes)) == rule


@pytest.mark.parametrize("name", RULES)
def test_the_file_is_plain_yaml_of_short_lines(name):
    text = dump_rule(RULES[name], {"Pisiform": "held-out Dice .9"})
    assert yaml.safe_load(text)["method"]
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert max(map(len, comments)) <= 100


def test_the_file_is_for_people():
    lines = dump_rule(RULES["hybrid"], {"Pisiform": "held-out Dice .9"}).splitlines()
    assert lines[0].startswith("# Pools instance and semantic sources")
    assert lines[1] == "method: hybrid"
    assert lines.index("# names of the sources, in the order of the weights.") + 1 == lines.index(
        "sources: [unet, yolo]"
    )
    start = lines.index("  Pisiform: # held-out Dice .9")
    assert lines[start + 1] == "    bias: -0.25"
    assert "      alone: [0.5, 0.3333333333333333, 1.0e-09]" in lines
    assert "    keeps: yolo" in lines


GOOD = """
method: hybrid
sources: [unet, yolo]
recover: true
classes:
  Pisiform:
    bias: 1e-1
    weights:
      alone: [1, 0, 0]
      shared: [0, 1, 0]
      outline: [0.5, 0.5, 0]
"""
EDITS = {
    "not YAML": ("sources: [unet, yolo]", "sources: [unet", "expected YAML"),
    "twice": ("recover: true", "sources: []", "'sources' comes twice"),
    "unknown method": ("method: hybrid", "method: most", "'method': expected one of mean.*'most'"),
    "no method": ("method: hybrid", "", "'method': expected one of mean.* found None"),
    "method as list": ("method: hybrid", "method: [hybrid]", "'method': expected one of mean"),
    "unknown key": ("recover: true", "recovers: true", "expected keys of sources.*'recovers'"),
    "sources as text": ("[unet, yolo]", "unet", "sources: expected a list, found 'unet'"),
    "source as bool": ("[unet, yolo]", "[unet, yes]", "sources: entry 2: expected a text.*True"),
    "recover as text": ("recover: true", "recover: 'no'", "recover: expected true or false"),
    "misspelt zone": ("shared:", "share:", "classes: Pisiform: weights: expected zones"),
    "unknown entry": ("bias: 1e-1", "bias: 1\n    x: 1", "classes: Pisiform: .* found 'x'"),
    "no bias": ("bias: 1e-1", "", "classes: Pisiform: expected the key 'bias', found weights"),
    "bias as text": ("1e-1", "much", "classes: Pisiform: bias: expected a number, found 'much'"),
    "infinite": ("1e-1", ".inf", "classes: Pisiform: .*expected finite numbers"),
    "row as number": ("[1, 0, 0]", "1", "Pisiform: weights: alone: expected a list, found 1"),
    "short row": ("[1, 0, 0]", "[1]", "Pisiform alone: expected 2 weights"),
    "weight as text": ("[1, 0, 0]", "[1, a, 0]", "alone: entry 2: expected a number, found 'a'"),
    "empty class": ("Pisiform:", "Pisiform:\n  Ulna:", "classes: Pisiform: expected a mapping"),
    "code": ("recover: true", "recover: !!python/object/apply:os.getcwd []", "expected YAML"),
}  # fmt: skip


def test_a_rule_written_by_hand_is_read(tmp_path):
    rule = read(tmp_path, GOOD)
    assert rule.sources == ("unet", "yolo")
    assert rule.classes["Pisiform"].bias == 0.1
    assert rule.classes["Pisiform"].weights["shared"] == (0.0, 1.0, 0.0)
    assert read(tmp_path, "method: hybrid\nsources: [1, 2]\n") == Hybrid(("1", "2"))
    assert read(tmp_path, "method: mean\n") == Mean()


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_that_goes_wrong_is_named(tmp_path, edit):
    before, after, message = EDITS[edit]
    assert before in GOOD
    with pytest.raises(ValueError, match=rf"rule\.yaml: .*{message}") as error:
        read(tmp_path, GOOD.replace(before, after, 1))
    assert "\n" not in str(error.value)


NESTED = {
    "method inside": ("carpals: {method: most}", "classes: carpals: 'method': expected one of"),
    "option inside": ("carpals: {method: mean, k: 2}", "carpals: expected keys of sources"),
    "value inside": ("carpals: {method: vote, k: x}", "carpals: k: expected a whole number"),
    "a list": ("carpals: [a, b]", "carpals: expected a text or a mapping, found"),
    "voters": ("carpals: {method: vote, votes: [a, []]}", "votes: expected a list of sources"),
}


@pytest.mark.parametrize("name", NESTED)
def test_an_error_inside_a_rule_is_named(tmp_path, name):
    line, message = NESTED[name]
    with pytest.raises(ValueError, match=rf"rule\.yaml: .*{message}"):
        read(tmp_path, f"method: classwise\nrest: a\nclasses:\n  {line}\n")


def test_who_vouches_for_sources_is_noted_and_read_over(tmp_path):
    rule, path = Vote(("a", "b")), tmp_path / "rule.yaml"
    text = dump_rule(rule, held_out_by_word=("b",))
    path.write_text(text, encoding="utf-8")
    assert read_rule(path) == rule
    assert yaml.safe_load(text)["held_out_by_word"] == ["b"]
    assert text.startswith(dump_rule(rule))
    path.write_text(text.replace("[b]", "b"), encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"rule\.yaml: held_out_by_word: expected a list, found 'b'"
    ):
        read_rule(path)


@pytest.mark.parametrize("text", ["", "[]", "text", "1", "method: {a: 1}"])
def test_other_files_are_refused(tmp_path, text):
    with pytest.raises(ValueError, match=r"rule\.yaml: "):
        read(tmp_path, text)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.yaml"):
        read_rule(tmp_path / "none.yaml")


def test_reading_runs_no_code(tmp_path):
    mark = tmp_path / "mark"
    call = f"!!python/object/apply:os.mkdir ['{mark}']"
    with pytest.raises(ValueError, match="expected YAML"):
        read(tmp_path, f"method: hybrid\nsources: {call}\n")
    assert not mark.exists()


def test_a_rule_without_a_name_is_not_written():
    with pytest.raises(ValueError, match="rule: expected one of mean"):
        dump_rule(lambda predictions, labels: predictions[0])


def test_a_rule_comes_from_a_method_or_a_config(tmp_path):
    (tmp_path / "rule.yaml").write_text("method: vote\nk: 2\n", encoding="utf-8")
    assert load_rule("vote", None) == Vote()
    assert load_rule(None, tmp_path / "rule.yaml") == Vote(k=2)
    for method, config in ((None, None), ("vote", tmp_path / "rule.yaml")):
        with pytest.raises(ValueError, match="either --method or --config"):
            load_rule(method, config)
    with pytest.raises(ValueError, match="method 'most': expected one of mean"):
        load_rule("most", None)


SHIPPED = {
    "classwise_carpals": ("wrist_unet", "wrist_segformer", "yolo", "unet"),
    "staple": (),
    "vote_of_votes": (*(f"unet_fold{i}" for i in range(5)), "segformer", "yolo"),
    "vote_two_of_three": (),
    "weighted": ("unet", "segformer", "yolo"),
}


@pytest.mark.parametrize("name", list(configs.names("fusion")))
def test_shipped_rules_fuse_hands(name, predict, soft_plane):
    rule = read_rule(Path(name))
    assert rule.sources == SHIPPED[name]
    hand = LabelSpace.load("hand_bones")
    planes = {label: soft_plane(1) for label in ("finger-1", "Pisiform", "Lunate")}
    source = predict(planes)
    fused = rule([source] * (len(rule.sources) or 3), hand)
    assert set(fused.masks) == set(planes)
    for label in planes:
        assert np.array_equal(
            fused.binary(label).full(source.size_hw), source.binary(label).full(source.size_hw)
        )


def test_a_shipped_rule_is_one_of_the_expected():
    assert set(configs.names("fusion")) == set(SHIPPED)


@dataclass(frozen=True)
class Polish:
    """Does something to a prediction: what may stand beside `method`."""

    strength: float = 1.0


@dataclass(frozen=True)
class Polished(WrappedRule):
    """A rule whose result is polished."""

    polish: Polish

    def __call__(self, predictions, labels):
        """Return what the rule says, under a key that tells of the polish."""
        fused = self.rule(predictions, labels)
        return replace(fused, key=f"{fused.key} {self.polish.strength}")


@pytest.fixture
def around(monkeypatch):
    monkeypatch.setitem(AROUND, "polish", (Polish, Polished))


def test_a_key_beside_the_method_is_put_around_the_rule(around, tmp_path, predict, labels):
    rule = read(tmp_path, "method: vote\nk: 1\npolish: {strength: 2}\n")
    assert rule == Polished(Vote(k=1), Polish(2.0))
    assert read(tmp_path, dump_rule(rule)) == rule
    assert rule([predict({})], labels).key.endswith(" 2.0")
    inside = read(tmp_path, "method: classwise\nrest: {method: mean, polish: {}}\n")
    assert inside == Classwise(rest=Polished(Mean(), Polish()))
    assert read(tmp_path, dump_rule(inside)) == inside


def test_a_key_beside_the_method_is_explained(around):
    lines = dump_rule(Polished(Vote(k=1), Polish(2.0))).splitlines()
    at = lines.index("polish: {strength: 2.0}")
    assert lines[at - 1].startswith("# Does something to a prediction")


def test_an_error_beside_the_method_is_named(around, tmp_path):
    with pytest.raises(ValueError, match=r"rule\.yaml: polish: strength: expected a number"):
        read(tmp_path, "method: mean\npolish: {strength: much}\n")
