"""Images in, answers out, in threads of their own: few at a time, and a queue that ends."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

from converters.files.images import stored_size_hw
from converters.types import NamedFile, Sample
from zoo.contract import PredictOptions
from zoo.export.exported import Exported
from zoo.serve.answers import FORMATS, OF_OBJECTS, Answer
from zoo.serve.metrics import Metrics

# What answers call an image: its real name, which may say whose it is, is nowhere kept.
NAME = "image"


class RefusedError(ValueError):
    """A request that is not answered with masks.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """How much is taken from outside.

    Attributes:
        body_bytes: of one image's file.
        pixels: of one image.
        queue: images that may wait for their turn.
        jobs: images at a time.
        upload_s: in which an image has to come in.
        answer_s: in which its masks have to be ready, waiting included.
    """

    body_bytes: int = 64 * 2**20
    pixels: int = 100 * 10**6
    queue: int = 8
    jobs: int = 1
    upload_s: float = 30.0
    answer_s: float = 120.0

    def __post_init__(self) -> None:
        counts = (self.body_bytes, self.pixels, self.jobs, self.upload_s, self.answer_s)
        if min(counts) <= 0 or self.queue < 0:
            raise ValueError(f"limits: expected positive numbers, found {self}")


@dataclass(frozen=True)
class Upload(NamedFile):
    """An image's file that is nowhere on the disk; see `converters.types.ImageFile`."""

    content: bytes
    name: str = NAME

    def read_bytes(self) -> bytes:
        """Return the file's content."""
        return self.content


def read_upload(content: bytes, pixels: int) -> Sample:
    """Return the sample that an image's file is; its pixels stay unread.

    Args:
        content: of the file.
        pixels: the most that it may have.

    Raises:
        RefusedError: no image, one of a kind that is not read, or one with more pixels.
    """
    try:
        size_hw = stored_size_hw(content)
    except (ValueError, ImportError) as error:
        raise RefusedError(415, f"body: {' '.join(str(error).split())}") from None
    if size_hw[0] * size_hw[1] > pixels:
        found = f"{size_hw[0]} x {size_hw[1]}"
        raise RefusedError(413, f"body: expected at most {pixels} pixels, found {found}")
    return Sample(NAME, Upload(content), size_hw)


class Workers:
    """Predicts images, few at a time.

    Args:
        exported: the model.
        options: how it predicts.
        limits: of what comes from outside.
        metrics: is told what waits.
    """

    def __init__(
        self, exported: Exported, options: PredictOptions, limits: Limits, metrics: Metrics
    ) -> None:
        self._exported, self._options = exported, options
        self._limits, self._metrics = limits, metrics
        self._pool = ThreadPoolExecutor(limits.jobs, thread_name_prefix="zoo-serve")
        self._taken, self._lock = 0, Lock()

    def answer(self, content: bytes, form: str) -> Answer:
        """Return an image's masks in one of `FORMATS`; blocks.

        Raises:
            RefusedError: the body is no image that can be read.
        """
        sample = read_upload(content, self._limits.pixels)
        try:
            (prediction,) = self._exported.predict([sample], self._options, form in OF_OBJECTS)
        except ValueError as error:
            raise RefusedError(422, f"body: {' '.join(str(error).split())}") from None
        return FORMATS[form](prediction, self._exported.labels)

    def check_room(self) -> None:
        """Make sure that one more image may wait.

        Raises:
            RefusedError: the queue is full.
        """
        limits = self._limits
        if self._taken >= limits.jobs + limits.queue:
            raise RefusedError(
                503, f"queue: expected at most {limits.queue} waiting images, found as many: retry"
            )

    async def submit(self, content: bytes, form: str) -> Answer:
        """Return an image's masks when it is its turn.

        Raises:
            RefusedError: the queue is full, the time is over, or as `answer`.
        """
        limits, metrics = self._limits, self._metrics
        self.check_room()
        self._take(1)
        metrics.move(waiting=1)
        work = self._pool.submit(self._work, content, form)
        # A place is free when the work ends, not when whoever asked has gone.
        work.add_done_callback(lambda _: self._take(-1))
        try:
            ready = asyncio.shield(asyncio.wrap_future(work))
            return await asyncio.wait_for(ready, limits.answer_s)
        except TimeoutError:
            if work.cancel():
                metrics.move(waiting=-1)
            raise RefusedError(
                504, f"answer: expected within {limits.answer_s:g} s, found none yet: retry"
            ) from None

    def _take(self, places: int) -> None:
        with self._lock:
            self._taken += places

    def _work(self, content: bytes, form: str) -> Answer:
        self._metrics.move(waiting=-1, computing=1)
        try:
            return self.answer(content, form)
        finally:
            self._metrics.move(computing=-1)

    def close(self) -> None:
        """Finish what was begun."""
        self._pool.shutdown(wait=True, cancel_futures=False)
