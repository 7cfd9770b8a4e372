"""What at a common place belongs to whom: shown, and removed where nobody needs it."""

import json
import time

import pytest

pytest.importorskip("fsspec")

from zoo.pipeline.storage import holdings
from zoo.pipeline.storage.holdings import (
    Holdings,
    clear_pipelines,
    clear_unheld,
    describe_place,
    names_at,
)
from zoo.pipeline.storage.transfer import Place, blob, digest_file, partial_name


@pytest.fixture(params=["folder_place", "memory_place", "s3_server"])
def place(request):
    return Place(request.getfixturevalue(request.param))


@pytest.fixture
def held(place, tmp_path):
    """Return two pipelines that have a file in common, and one each; and the files' digests."""
    found, digests = {name: Holdings(place, name) for name in ("one", "two")}, {}
    for name, text in {"both": "b" * 100, "one": "o" * 10, "two": "t"}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        digests[name] = digest_file(tmp_path / name)
        trees = [found[name]] if name in found else found.values()
        for one in trees:
            one.hold({f"/data/{name}": (len(text), digests[name])})
        place.put(tmp_path / name, digests[name])
    place.write_text("working/one/train-a-1/state.json", "{}")
    return found, digests


def there(place, digests):
    absent = place.missing(digests.values())
    return {name for name, digest in digests.items() if digest not in absent}


def give_sign(place, name, seconds):
    text = json.dumps({"where": f"host:/{name}", "time": time.time() - seconds})
    place.write_text(f"pipelines/{name}/sign.json", text)


def test_what_others_need_stays(place, held):
    found, digests = held
    assert found["one"].clear() == (1, 10)
    assert there(place, digests) == {"both", "two"}
    assert not place.exists("working/one")
    assert names_at(place) == ["two"]
    assert found["two"].clear() == (2, 101)
    assert names_at(place) == []
    assert found["two"].clear() == (0, 0)


def test_a_sign_of_life_is_given_now_and_then(place, monkeypatch):
    one = Holdings(place, "one")
    assert one.describe().seconds == float("inf")
    one.sign("host:/a")
    assert one.describe().where == "host:/a"
    assert one.describe().seconds < 100
    one.sign("host:/b")
    assert one.describe().where == "host:/a"
    now = time.monotonic()
    monkeypatch.setattr(holdings.time, "monotonic", lambda: now + 100)
    one.sign("host:/b")
    assert one.describe().where == "host:/b"


def test_only_what_is_dead_is_cleared(place, held):
    give_sign(place, "one", 5)
    give_sign(place, "two", 10000)
    with pytest.raises(ValueError, match="--pipeline one: expected one that is not at work"):
        clear_pipelines(place, ["two", "one"])
    with pytest.raises(ValueError, match="expected one of those there \\(one, two\\)"):
        clear_pipelines(place, ["two", "three"])
    assert {one.name for one in describe_place(place)} == {"one", "two"}
    assert clear_pipelines(place, ["two"]) == {"two": (1, 1)}
    assert there(place, held[1]) == {"both", "one"}


def test_what_is_nobody_s_is_cleared(place, held, tmp_path):
    (tmp_path / "orphan").write_text("x", encoding="utf-8")
    orphan = digest_file(tmp_path / "orphan")
    place.put(tmp_path / "orphan", orphan)
    place.write_text("partial/123-left", "x")
    place.write_text(f"partial/{time.time():.0f}-now", "x")
    assert clear_unheld(place) == 2
    assert place.missing([orphan]) == {orphan}
    assert there(place, held[1]) == {"both", "one", "two"}
    assert len(place.listing("partial")) == 1


def test_what_a_machine_that_died_was_about_to_put_goes_with_its_pipeline(place, held):
    for owner in ("one", "two", ""):
        place.write_text(partial_name(owner), "x")
    found, _ = held
    found["one"].clear()
    assert sorted(name.split("-")[1] for name in place.listing("partial")) == ["", "two"]


def test_where_a_list_is_damaged_nothing_is_removed(place, held):
    found, digests = held
    (list_name, *_) = place.listing("pipelines/two/trees")
    place.write_text(f"pipelines/two/trees/{list_name}", "[]")
    with pytest.raises(ValueError, match="found damaged"):
        found["one"].clear()
    assert there(place, digests) == {"both", "one", "two"}


def test_a_place_is_shown_and_cleared_by_command(folder_place, tmp_path, zoo, capsys):
    place = Place(folder_place)
    (tmp_path / "file").write_text("x", encoding="utf-8")
    digest = digest_file(tmp_path / "file")
    Holdings(place, "dead").hold({"/a": (1, digest)})
    place.put(tmp_path / "file", digest)
    give_sign(place, "dead", 3 * 86400)
    give_sign(place, "alive", 0)
    zoo("clear", folder_place)
    said = capsys.readouterr().out
    assert "dead: last sign of life 72.0 h ago, of host:/dead" in said
    assert place.exists(blob(digest))
    zoo("clear", folder_place, "--days", 4)
    assert place.exists(blob(digest))
    zoo("clear", folder_place, "--days", 2)
    assert "dead: 1 files removed" in capsys.readouterr().out
    assert names_at(place) == ["alive"]
    assert not place.exists(blob(digest))
    zoo("clear", folder_place, "--pipeline", "alive", code=2)
    assert "expected one that is not at work" in capsys.readouterr().err
