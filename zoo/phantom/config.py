"""What a phantom data set is made of."""

from __future__ import annotations

from dataclasses import dataclass

MIN_SIZE, MAX_SIZE = 256, 2048


# The label space of what is drawn.
LABELS = "hand_bones"


@dataclass(frozen=True)
class PhantomConfig:
    """Settings of a phantom data set.

    Attributes:
        people: people in the training set, two hands each.
        test_people: people in the test set.
        size: side of the square images in pixels, 256 to 2048.
        seed: the same seed gives the same bytes.
        bent_train: share of people with bent wrists in the training set.
        bent_test: the same for the test set.
        annotators: 1 draws every outline where it is; 2 share the images, each in a way of its own,
            and guess what lies under other bones, see `zoo.phantom.styles`.
        artefacts: share of hands with a ring, nail polish, a cut fingertip or a letter.

    Raises:
        ValueError: a count, size or share out of its range.
    """

    people: int = 8
    test_people: int = 4
    size: int = 512
    seed: int = 0
    bent_train: float = 0.10
    bent_test: float = 0.58
    artefacts: float = 0.20
    annotators: int = 1

    def __post_init__(self) -> None:
        for name in ("people", "test_people", "seed"):
            if (value := getattr(self, name)) < 0:
                raise ValueError(f"{name}: expected 0 or more, found {value}")
        if self.people + self.test_people < 1:
            raise ValueError("people, test_people: expected at least one person, found none")
        if self.annotators not in (1, 2):
            raise ValueError(f"annotators: expected 1 or 2, found {self.annotators}")
        if not MIN_SIZE <= self.size <= MAX_SIZE:
            raise ValueError(f"size: expected {MIN_SIZE} to {MAX_SIZE}, found {self.size}")
        for name in ("bent_train", "bent_test", "artefacts"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name}: expected a share from 0 to 1, found {value}")
