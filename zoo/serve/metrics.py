"""Counts of a server, in Prometheus' text format (version 0.0.4)."""

from __future__ import annotations

from collections import Counter
from threading import Lock

# Upper bounds of an answer's time, in seconds.
BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """What a server has answered, and how long that took; of images nothing is kept."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._answers: Counter[int] = Counter()
        self._buckets: Counter[float] = Counter()
        self._seconds, self._count = 0.0, 0
        self.waiting, self.computing = 0, 0

    def move(self, waiting: int = 0, computing: int = 0) -> None:
        """Take down that so many images more, or fewer, wait or are worked on."""
        with self._lock:
            self.waiting += waiting
            self.computing += computing

    def answered(self, status: int, seconds: float) -> None:
        """Count an answer to an image; the time of those that have masks."""
        with self._lock:
            self._answers[status] += 1
            if status != 200:
                return
            self._seconds += seconds
            self._count += 1
            for bound in BUCKETS:
                self._buckets[bound] += seconds <= bound

    def text(self) -> str:
        """Return all counts as Prometheus reads them."""
        with self._lock:
            lines = [
                "# HELP zoo_answers_total Answers to images, by status.",
                "# TYPE zoo_answers_total counter",
                *(
                    f'zoo_answers_total{{status="{s}"}} {n}'
                    for s, n in sorted(self._answers.items())
                ),
                "# HELP zoo_waiting Images that wait for their turn.",
                "# TYPE zoo_waiting gauge",
                f"zoo_waiting {self.waiting}",
                "# HELP zoo_computing Images that are worked on.",
                "# TYPE zoo_computing gauge",
                f"zoo_computing {self.computing}",
                "# HELP zoo_seconds Time from an image's last byte to its masks.",
                "# TYPE zoo_seconds histogram",
                *(f'zoo_seconds_bucket{{le="{b}"}} {self._buckets[b]}' for b in BUCKETS),
                f'zoo_seconds_bucket{{le="+Inf"}} {self._count}',
                f"zoo_seconds_sum {self._seconds:.6f}",
                f"zoo_seconds_count {self._count}",
            ]
        return "\n".join(lines) + "\n"
