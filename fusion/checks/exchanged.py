"""Classes whose predictions lie on the annotations of another class, as exchanged names make them.

What is compared is the Dice of all images together, of a class's predictions and each class's
annotations. A class is told where another one's annotations fit its predictions twice as well as
its own do, and twice as well as that other's predictions fit them. Two classes that are told of
each other are an exchange; one alone has to lie there clearly. Three kinds of networks are none
such: one that finds a class everywhere, as a mask of the whole image would do as well; one that
takes two classes for one, as then the other's predictions lie there, too; and one of classes whose
annotations share their pixels by nature.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from converters.masks import CropMask
from fusion.metrics.scores import intersection

# Dice, at least, of two that are exchanged, and of one alone.
_EXCHANGED, _CLEARLY = 0.3, 0.6
# How many times better another class fits.
_TIMES = 2
# Of what a mask of the whole image lacks to a Dice of 1, one in place has so much.
_GAINED = 0.2
# Named in a message.
_SHOWN = 4


@dataclass(frozen=True)
class Misplaced:
    """A class whose predictions lie on another class's annotations.

    Attributes:
        name: the class.
        on: the other one.
        dice: of its predictions and the other's annotations, 0 to 1.
        own: of its predictions and its own annotations, 0 to 1.
    """

    name: str
    on: str
    dice: float
    own: float

    def __str__(self) -> str:
        return f"{self.name} on {self.on} ({self.dice:.2f}, on its own {self.own:.2f})"


@dataclass
class Placement:
    """Counts pixels of predictions and annotations, image by image.

    Attributes:
        background: the class of what no object covers; it is told in an exchange alone.
    """

    background: str | None = None
    _pixels: int = 0
    _found: Counter[str] = field(default_factory=Counter)
    _true: Counter[str] = field(default_factory=Counter)
    _shared: Counter[tuple[str, str]] = field(default_factory=Counter)
    _by_nature: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(
        self,
        found: Mapping[str, CropMask],
        truth: Mapping[str, CropMask],
        size_hw: tuple[int, int],
    ) -> None:
        """Count one image.

        Args:
            found: class -> what is predicted, of the classes that are spoken of.
            truth: class -> what is annotated.
            size_hw: height and width of the image.
        """
        self._pixels += size_hw[0] * size_hw[1]
        self._found.update({name: mask.area for name, mask in found.items()})
        self._true.update({name: mask.area for name, mask in truth.items()})
        for on, true in truth.items():
            for name, mask in found.items():
                self._shared[name, on] += intersection(mask, true)
            for name, mask in truth.items():
                self._by_nature[name, on] += intersection(mask, true)

    def misplaced(self) -> list[Misplaced]:
        """Return the classes whose predictions lie on another class's annotations."""
        fits: dict[str, Misplaced] = {}
        for name in sorted(+self._found):
            others = [self._fit(name, on) for on in sorted(+self._true) if on != name]
            best = max(others, key=lambda fit: fit.dice, default=None)
            if best and best.dice >= _EXCHANGED and self._fits_better(best):
                fits[name] = best
        return [fit for fit in fits.values() if self._is_told(fit, fits)]

    def _fit(self, name: str, on: str) -> Misplaced:
        return Misplaced(name, on, self._dice(name, on), self._dice(name, name))

    def _dice(self, name: str, on: str) -> float:
        area = self._found[name] + self._true[on]
        return 2 * self._shared[name, on] / area if area else 0.0

    def _fits_better(self, fit: Misplaced) -> bool:
        """Tell whether nothing but another name explains where a class's predictions lie."""
        area = self._true[fit.name] + self._true[fit.on]
        by_nature = 2 * self._by_nature[fit.name, fit.on] / area
        return fit.dice > _TIMES * max(fit.own, self._dice(fit.on, fit.on), by_nature)

    def _is_told(self, fit: Misplaced, fits: Mapping[str, Misplaced]) -> bool:
        if fit.on in fits and fits[fit.on].on == fit.name:
            return True
        everywhere = 2 * self._true[fit.on] / (self._pixels + self._true[fit.on])
        least = max(_CLEARLY, everywhere + _GAINED * (1 - everywhere))
        return fit.dice >= least and self.background not in (fit.name, fit.on)

    def describe(self) -> str:
        """Return in one line which classes lie on others; "" where none does."""
        found = self.misplaced()
        if not found:
            return ""
        listed = ", ".join(map(str, found[:_SHOWN]))
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        return (
            "the masks of classes lie on the annotations of others, by their Dice: "
            f"{listed}{more}: are the names of the classes, and their order, as they should be?"
        )
