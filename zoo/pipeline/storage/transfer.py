"""Files by their contents at a place that machines without a shared disk all reach.

The place is an fsspec URL: `file://`, `s3://`, `sftp://`, ... What lies there is called by the
digest of its bytes, so that nothing is moved to where it is already. Every transfer is checked
against its digest, on the way there as on the way back, and appears whole or not at all: a store of
objects takes an object at once, elsewhere a file has another name until all of it is there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeVar

from converters.errors import import_optional
from converters.files.json_files import parse_json

Answer = TypeVar("Answer")
Tree = dict[str, tuple[int, str]]
"""Files by their path: size in bytes, and digest."""

PARTIAL = "partial"
# An object appears when all of it has arrived.
_WHOLE_AT_ONCE = frozenset(("s3", "s3a"))
_CHUNK = 1 << 20
_AT_ONCE = 8
_TRIES, _PAUSE = 3, 1.0
# Of more files than this it is cheaper to list all that are there.
_ASKED_ONE_BY_ONE = 64
# What else fsspec needs, and where it comes from.
_EXTRAS = {"s3": ("s3fs", "s3"), "sftp": ("paramiko", "cluster"), "ssh": ("paramiko", "cluster")}


class Damaged(ValueError):  # noqa: N818 (it reads as what is wrong)
    """A file at the common place was not what its digest says; it has been removed there."""


def digest_file(path: Path) -> str:
    """Return the digest of a file's bytes: 32 hexadecimal digits of BLAKE2b."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]


def size_of(tree: Mapping[str, tuple[int, str]]) -> int:
    """Return the bytes of a tree's files, the same contents once."""
    return sum({digest: size for size, digest in tree.values()}.values())


def as_tree(found: Mapping[str, Sequence[object]]) -> Tree:
    """Return a tree as somebody has written it down.

    Raises:
        ValueError: it is none, or leads out of its folder.
    """
    tree: Tree = {}
    for path, (size, digest) in found.items():
        is_safe = path.startswith("/") and ".." not in path.split("/")
        if not (is_safe and isinstance(size, int) and re.fullmatch("[0-9a-f]{32}", str(digest))):
            raise ValueError(
                f"{path}: expected a file's path, size and digest, found another thing"
            )
        tree[path] = size, str(digest)
    return tree


class Place:
    """Files at a URL, some called by their digests and some by names.

    Args:
        url: as fsspec takes it, or env:NAME. Keys of S3 are found where boto3 looks for them, those
            of SSH where ssh does; a server has to be in `~/.ssh/known_hosts`.
        owner: the pipeline that puts files there, by which its unfinished ones are known.

    Raises:
        ValueError: no such protocol, or `env:NAME` is not set.
        MissingDependency: the protocol's library is not installed.
    """

    def __init__(self, url: str, owner: str = "") -> None:
        self.url, self.owner = _resolved(url), owner
        self._made: set[str] = set()
        protocol = self.url.partition("://")[0]
        if protocol in _EXTRAS:
            import_optional(*_EXTRAS[protocol])
        try:
            _, self._root = _open(self.url)
        except (ValueError, ImportError) as error:
            # The address may hold a password.
            raise ValueError(f"--through {protocol}://...: {error}") from None
        except Exception as error:  # each protocol has errors of its own
            raise OSError(f"--through {protocol}://...: {_one_line(error)}") from None

    def missing(self, digests: Iterable[str]) -> set[str]:
        """Return those digests of which no file is there."""
        asked = set(digests)
        if len(asked) > _ASKED_ONE_BY_ONE:
            return asked - self.listed()
        return {one for one in asked if not self.exists(blob(one))}

    def exists(self, name: str) -> bool:
        """Tell whether a file or a folder is there."""

        def ask() -> bool:
            files = self._files()
            files.invalidate_cache()
            return bool(files.exists(f"{self._root}/{name}"))

        return _tried(ask)

    def put(self, file: Path, digest: str, name: str = "") -> None:
        """Put a file there.

        Args:
            file: that is read.
            digest: of its bytes.
            name: of what is written; without, that of the digest.

        Raises:
            ValueError: the file has other bytes: it was changed while the pipeline ran.
            OSError: the place does not take it.
        """

        def send() -> None:
            with file.open("rb") as stream:
                found = self._write(name or blob(digest), stream, digest)
            if found != digest:
                raise ValueError(
                    f"{file}: expected that it stays as it was when the pipeline began, found "
                    "other contents: give the command again"
                )

        _tried(send)

    def get(self, digest: str, file: Path, name: str = "") -> None:
        """Bring a file from there.

        Args:
            digest: of the bytes that are expected.
            file: is written, as a whole or not at all.
            name: of what is read; without, that of the digest.

        Raises:
            Damaged: it was damaged there.
            OSError: it is not there.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{uuid.uuid4().hex[:8]}.partial")
        where = name or blob(digest)

        def bring() -> str:
            with (
                self._files().open(f"{self._root}/{where}", "rb") as source,
                partial.open("wb") as target,
            ):
                return copy(source, target)

        try:
            # Once more: it may have been damaged on the way.
            if _tried(bring) != digest and _tried(bring) != digest:
                self._refuse(where)
            os.replace(partial, file)
        finally:
            partial.unlink(missing_ok=True)

    def _refuse(self, name: str) -> NoReturn:
        """Remove what is damaged, so that it is put anew."""
        self.remove(name)
        raise Damaged(
            f"{name} at the place of --through: expected contents of that digest, found damaged "
            "ones, which were removed: give the command again"
        )

    def move(self, name: str, to: str) -> None:
        """Give a file another name."""

        def rename() -> None:
            self._make_folder(to)
            self._files().mv(f"{self._root}/{name}", f"{self._root}/{to}")

        _tried(rename)

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that it holds; nothing where there is none."""
        files = self._files()
        files.invalidate_cache()
        with suppress(FileNotFoundError):
            _remove(files, f"{self._root}/{name}")

    def remove_all(self, names: Sequence[str]) -> None:
        """Remove files; nothing where there is none."""
        files = self._files()

        def remove(name: str) -> None:
            with suppress(FileNotFoundError):
                _tried(lambda: self._files().rm_file(f"{self._root}/{name}"))

        if _is_whole_at_once(files) and names:
            # A thousand with one request.
            _tried(lambda: files.rm([f"{self._root}/{name}" for name in names]))
        else:
            at_once(remove, names)

    def listing(self, name: str) -> list[str]:
        """Return the names of what lies in a folder; nothing where there is none."""

        def ask() -> list[str]:
            files = self._files()
            files.invalidate_cache()
            with suppress(FileNotFoundError):
                found = files.ls(f"{self._root}/{name}", detail=False)
                return sorted(path.rstrip("/").rpartition("/")[2] for path in found)
            return []

        return _tried(ask)

    def write_text(self, name: str, text: str) -> None:
        """Write a small file, as a whole; one of that name is replaced."""
        import io

        data = text.encode()
        _tried(lambda: self._write(name, io.BytesIO(data), ""))

    def read_text(self, name: str) -> str:
        """Read a small file; "" where there is none."""

        def read() -> str:
            files = self._files()
            files.invalidate_cache()
            try:
                with files.open(f"{self._root}/{name}", "rb") as stream:
                    return bytes(stream.read()).decode(errors="replace")
            except FileNotFoundError:
                return ""

        return _tried(read)

    # --- many files

    def put_all(self, files: Mapping[str, Path], moved: Callable[[int], None]) -> None:
        """Put files there that are not there yet, some at a time.

        Args:
            files: by their digests.
            moved: is told the bytes of each when it is there, also of those that were.
        """
        absent = self.missing(files)

        def one(digest: str) -> None:
            if digest in absent:
                self.put(files[digest], digest)
            moved(files[digest].stat().st_size)

        at_once(one, files)

    def write_tree(self, tree: Tree, folder: str) -> str:
        """Put down which files make a tree; return the name of that, whose end is its digest."""
        text = json.dumps(sorted((path, *about) for path, about in tree.items()))
        name = f"{folder}/{_digest(text)}"
        if not self.exists(name):
            self.write_text(name, text)
        return name

    def read_tree(self, name: str) -> Tree:
        """Return the tree of a name that `write_tree` gave.

        Raises:
            FileNotFoundError: it is not there.
            Damaged: it was damaged.
        """
        text = self.read_text(name)
        if not text:
            raise FileNotFoundError(
                f"{name} at the place of --through: expected a list of files, found none"
            )
        if _digest(text) != name.rpartition("/")[2]:
            self._refuse(name)
        return as_tree({path: about for path, *about in parse_json(text.encode())})

    # --- inside

    def _files(self) -> Any:
        # One a thread, which fsspec remembers: connections to servers are no more than that.
        return _open(self.url)[0]

    def _write(self, name: str, stream: BinaryIO, digest: str) -> str:
        """Write a file there; return the digest of what was read, with another one nothing."""
        files, path = self._files(), f"{self._root}/{name}"
        self._make_folder(name)
        if _is_whole_at_once(files):
            target = files.open(path, "wb", autocommit=False)
            found = copy(stream, target)
            target.close()
            if digest in ("", found):
                target.commit()
            else:
                target.discard()
            return found
        unfinished = partial_name(self.owner)
        partial = f"{self._root}/{unfinished}"
        self._make_folder(unfinished)
        try:
            with files.open(partial, "wb") as target:
                found = copy(stream, target)
            if digest in ("", found):
                files.mv(partial, path)
            return found
        finally:
            with suppress(OSError):
                files.rm_file(partial)

    def _make_folder(self, name: str) -> None:
        folder = f"{self._root}/{name}".rpartition("/")[0]
        files = self._files()
        if folder in self._made or _is_whole_at_once(files):
            return
        try:
            files.makedirs(folder, exist_ok=True)
        except OSError:
            # Another machine makes the same one.
            files.makedirs(folder, exist_ok=True)
        self._made.add(folder)

    def listed(self) -> set[str]:
        """Return the digests of all files that are there."""

        def ask() -> set[str]:
            files = self._files()
            files.invalidate_cache()
            with suppress(FileNotFoundError):
                return {name.rpartition("/")[2] for name in files.find(f"{self._root}/blobs")}
            return set()

        return _tried(ask)


def partial_name(owner: str = "") -> str:
    """Return a name for what is not whole yet; it tells since when, in seconds, and whose it is."""
    return f"{PARTIAL}/{time.time():.0f}-{owner}-{uuid.uuid4().hex}"


def is_partial_of(owner: str, name: str) -> bool:
    """Tell whether what is not whole yet, by its name in its folder, is a pipeline's."""
    return bool(owner) and name.split("-")[1:2] == [owner]


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode()).hexdigest()[:32]


def blob(digest: str) -> str:
    """Return the name of the file with a digest."""
    return f"blobs/{digest[:2]}/{digest}"


def at_once(do: Callable[[str], None], names: Iterable[str]) -> None:
    """Do the same for each of some names, a few at a time; the first error is raised."""
    ordered = list(names)
    if len(ordered) < 2:
        for name in ordered:
            do(name)
        return
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            for _ in pool.map(do, ordered):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


class Moving:
    """Counts the bytes that are still to be moved.

    Args:
        tell: is called when that has changed, not too often.
    """

    def __init__(self, tell: Callable[[dict[str, int]], None]) -> None:
        self._tell, self._lock = tell, threading.Lock()
        self._left: dict[str, int] = {}
        self._last = 0.0

    def begin(self, what: str, size: int) -> Callable[[int], None]:
        """Begin to move something; what is returned takes the bytes that have been."""
        self._change(what, size)
        return lambda moved: self._change(what, -moved)

    def end(self, what: str) -> None:
        """Forget something that has been moved, or could not be."""
        with self._lock:
            self._left.pop(what, None)
            self._tell(dict(self._left))

    def _change(self, what: str, by: int) -> None:
        with self._lock:
            self._left[what] = self._left.get(what, 0) + by
            if time.monotonic() - self._last > _PAUSE:
                self._last = time.monotonic()
                self._tell(dict(self._left))


def _open(url: str) -> tuple[Any, str]:
    import fsspec

    options: dict[str, Any] = {}
    protocol = url.partition("://")[0]
    if protocol in ("sftp", "ssh"):
        options["host_key_policy"] = _known_hosts_only()
    files, root = fsspec.core.url_to_fs(url, **options)
    return files, str(root).rstrip("/")


_policies: list[Any] = []


def _known_hosts_only() -> Any:
    """Return paramiko's policy for servers: fsspec would trust whoever answers."""
    if _policies:
        return _policies[0]
    import paramiko

    class KnownHosts(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
        def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
            file = Path("~/.ssh/known_hosts").expanduser()
            known = paramiko.HostKeys(str(file) if file.is_file() else None)
            if not known.check(hostname, key):
                raise paramiko.SSHException(
                    f"expected the key of {hostname} in {file}, found none or another one: log in "
                    "once by ssh"
                )

    _policies.append(KnownHosts)
    return KnownHosts


def _resolved(url: str) -> str:
    if url.startswith("env:"):
        name = url.removeprefix("env:")
        url = os.environ.get(name, "")
        if not url:
            raise ValueError(f"--through env:{name}: expected a URL in that variable, found none")
    if "://" not in url:
        raise ValueError(
            f"--through {url}: expected a URL such as file:///shared/place, s3://bucket/place, or "
            "sftp://user@host/place"
        )
    return url


def _is_whole_at_once(files: Any) -> bool:
    names = files.protocol if isinstance(files.protocol, tuple) else (files.protocol,)
    return not _WHOLE_AT_ONCE.isdisjoint(names)


def _remove(files: Any, path: str) -> None:
    if not files.isdir(path):
        files.rm_file(path)
    elif _is_whole_at_once(files):
        files.rm(path, recursive=True)
    else:
        for entry in list(files.ls(path, detail=False)):
            _remove(files, entry)
        files.rmdir(path)


def copy(source: Any, target: Any) -> str:
    """Copy a stream's bytes to another one; return their digest."""
    digest = hashlib.blake2b()
    for chunk in _chunks(source):
        digest.update(chunk)
        target.write(chunk)
    return digest.hexdigest()[:32]


def _chunks(source: Any) -> Iterator[bytes]:
    while chunk := source.read(_CHUNK):
        yield chunk


def _tried(do: Callable[[], Answer]) -> Answer:
    """Do something again where a network fails; what is missing or wrong stays so."""
    for left in reversed(range(_TRIES)):
        try:
            return do()
        except (ValueError, FileNotFoundError, PermissionError):
            raise
        except Exception as error:  # each protocol has errors of its own
            if not left:
                raise OSError(f"the place of --through: {_one_line(error)}") from error
            time.sleep(_PAUSE)
    raise AssertionError


def _one_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
