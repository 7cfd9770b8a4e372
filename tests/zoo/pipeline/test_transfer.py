"""Files by their digests: whole or not there, checked both ways, moved once, by each protocol."""

import os
import threading

import pytest

pytest.importorskip("fsspec")

from zoo.pipeline.storage import transfer
from zoo.pipeline.storage.transfer import (
    Damaged,
    Moving,
    Place,
    as_tree,
    blob,
    digest_file,
    size_of,
)


@pytest.fixture(params=["folder", "memory", "sftp", "s3"])
def place(request, monkeypatch):
    monkeypatch.setattr(transfer, "_PAUSE", 0.01)
    if request.param == "folder":
        return Place(request.getfixturevalue("folder_place"))
    if request.param == "memory":
        return Place(request.getfixturevalue("memory_place"))
    if request.param == "sftp":
        return Place(request.getfixturevalue("ssh_server")[0])
    return Place(request.getfixturevalue("s3_server"))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights_1.bin"
    path.write_bytes(os.urandom(3 << 20))
    return path


@pytest.mark.slow
def test_what_is_put_comes_back(place, file, tmp_path):
    digest = digest_file(file)
    assert place.missing([digest]) == {digest}
    place.put(file, digest)
    assert place.missing([digest]) == set()
    place.get(digest, tmp_path / "there" / "again.bin")
    assert (tmp_path / "there" / "again.bin").read_bytes() == file.read_bytes()
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["again.bin"]


def test_an_empty_file_is_a_file(place, tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    digest = digest_file(tmp_path / "empty")
    place.put(tmp_path / "empty", digest)
    place.get(digest, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b""


def test_a_file_that_was_changed_is_not_put(place, file):
    digest = digest_file(file)
    file.write_bytes(b"other")
    with pytest.raises(ValueError, match="expected that it stays as it was"):
        place.put(file, digest)
    assert place.missing([digest]) == {digest}


def test_a_damaged_file_is_not_taken(place, file, tmp_path):
    digest = digest_file(file)
    place.write_text(blob(digest), "damaged")
    with pytest.raises(Damaged, match="expected contents of that digest, found damaged"):
        place.get(digest, tmp_path / "there" / "x")
    assert list((tmp_path / "there").iterdir()) == []
    # So that it is put again.
    assert place.missing([digest]) == {digest}


def test_a_file_that_is_damaged_on_the_way_is_brought_again(place, file, tmp_path, monkeypatch):
    digest = digest_file(file)
    place.put(file, digest)
    whole, tries = transfer.copy, []

    def broken(source, target):
        tries.append(1)
        return whole(source, target) if len(tries) > 1 else "0" * 32

    monkeypatch.setattr(transfer, "copy", broken)
    place.get(digest, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == file.read_bytes()


def test_what_is_not_there_is_said(place, tmp_path):
    with pytest.raises(FileNotFoundError):
        place.get("0" * 32, tmp_path / "x")
    assert place.read_text("nothing") == ""
    place.remove("nothing")


def test_a_text_is_replaced(place):
    place.write_text("working/a/state.json", "one")
    place.write_text("working/a/state.json", "two")
    assert place.read_text("working/a/state.json") == "two"
    place.remove("working/a")
    assert place.read_text("working/a/state.json") == ""


def test_many_are_removed_at_once(place, tmp_path):
    for name in "abc":
        place.write_text(f"working/{name}", name)
    place.remove_all(["working/a", "working/b", "working/none"])
    assert [name for name in "abc" if place.read_text(f"working/{name}")] == ["c"]
    place.remove_all([])


@pytest.mark.slow
def test_a_file_gets_another_name(place, file):
    digest = digest_file(file)
    place.put(file, digest, "working/a/x")
    place.move("working/a/x", blob(digest))
    assert place.missing([digest]) == set()
    assert not place.exists("working/a/x")


@pytest.mark.slow
def test_files_are_put_once(place, tmp_path):
    files = {}
    for number in range(70):
        path = tmp_path / f"{number}"
        path.write_text(f"file {number}", encoding="utf-8")
        files[digest_file(path)] = path
    moved = []
    place.put_all(files, moved.append)
    assert sum(moved) == sum(path.stat().st_size for path in files.values())
    assert place.missing(files) == set()
    put = place.put
    place.put = None
    place.put_all(files, moved.append)
    place.put = put


def test_trees(place):
    one, other = "a" * 32, "b" * 32
    tree = {"/a/b_1": (3, one), "/a/c": (4, other), "/d": (3, one)}
    assert size_of(tree) == 7
    name = place.write_tree(tree, "lists")
    assert place.read_tree(name) == tree
    assert place.listing("lists") == [name.removeprefix("lists/")]
    place.write_text(name, "[]")
    with pytest.raises(Damaged, match="found damaged ones"):
        place.read_tree(name)
    with pytest.raises(FileNotFoundError, match="expected a list of files, found none"):
        place.read_tree(name)
    assert place.listing("lists") == []
    assert place.listing("nowhere") == []


@pytest.mark.parametrize(
    ("path", "about"),
    [
        ("/a/../../etc", (1, "a" * 32)),
        ("a", (1, "a" * 32)),
        ("/a", (1, "../x")),
        ("/a", ("1", "a" * 32)),
    ],
)
def test_a_tree_does_not_lead_out_of_its_folder(path, about):
    with pytest.raises(ValueError, match="expected a file's path, size and digest"):
        as_tree({path: about})


def test_an_upload_that_breaks_leaves_nothing_under_its_digest(place, file, monkeypatch):
    digest = digest_file(file)

    def broken(source, target):
        target.write(source.read(1000))
        raise ConnectionResetError("the cable")

    monkeypatch.setattr(transfer, "copy", broken)
    with pytest.raises(OSError, match="the cable"):
        place.put(file, digest)
    monkeypatch.undo()
    assert place.missing([digest]) == {digest}


def test_a_killed_upload_leaves_no_half_file(tmp_path, file):
    """The part that has been sent lies where nothing is looked for."""
    place = Place(f"file://{tmp_path}/place")
    fifo = tmp_path / "slow"
    os.mkfifo(fifo)

    def put():
        with pytest.raises(ValueError, match="expected that it stays"):
            place.put(fifo, "f" * 32)

    thread = threading.Thread(target=put, daemon=True)
    thread.start()
    with fifo.open("wb") as stream:
        stream.write(b"x" * (2 << 20))
        stream.flush()
        assert len(list((tmp_path / "place" / "partial").iterdir())) == 1
        assert not (tmp_path / "place" / blob("f" * 32)).exists()
    thread.join(30)
    assert not (tmp_path / "place" / blob("f" * 32)).exists()
    assert list((tmp_path / "place" / "partial").iterdir()) == []


def test_an_unknown_server_is_refused(ssh_server, tmp_path):
    url, _ = ssh_server
    (tmp_path / "other" / ".ssh").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path / "other"))
        with pytest.raises(OSError, match=r"expected the key of \[127.0.0.1\]") as error:
            Place(url.replace("someone", "somebody"))
    assert "@" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("/no/url", "expected a URL such as file://"),
        ("env:NOT_SET", "expected a URL in that variable"),
        ("nonsense://x", "Protocol not known"),
    ],
)
def test_what_is_no_place_is_refused(url, found):
    with pytest.raises(ValueError, match=found):
        Place(url)


def test_an_address_may_be_in_a_variable(folder_place, monkeypatch):
    monkeypatch.setenv("THE_PLACE", folder_place)
    assert Place("env:THE_PLACE").url == folder_place


def test_what_waits_to_be_moved_is_told():
    told = []
    moving = Moving(told.append)
    moved = moving.begin("data", 10)
    moved(4)
    moving.end("other")
    assert told[-1] == {"data": 6}
    moving.end("data")
    assert told[-1] == {}
