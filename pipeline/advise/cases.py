"""The four cases of transfer learning: small or large, alike or unlike; placed by measurement.

The rule of thumb that the published recipes teach: small and alike, a linear head on the last
layer; large and alike, fine-tune; small and unlike, an earlier layer or late layers trained; large
and unlike, train all from the pretrained weights. The cases name where a set stands; what is
advised follows from what was measured on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LARGE = 500  # images per class from which the published recipes train the network
ALIKE = 0.4  # mean confidence of the network's own classifier from which images are familiar
NAMES = {
    1: "small and alike",
    2: "large and alike",
    3: "small and unlike",
    4: "large and unlike",
}


@dataclass(frozen=True)
class Case:
    """Where a data set stands.

    Attributes
    ----------
    number : int
        1 small and alike, 2 large and alike, 3 small and unlike, 4 large and unlike.
    large, alike : bool
    by : str
        What the likeness was judged by: ``confidence``, or ``layers`` where the network has no
        classifier of its own.
    """

    number: int
    large: bool
    alike: bool
    by: str

    @property
    def name(self) -> str:
        """In words."""
        return NAMES[self.number]


def place(*, images_a_class: float, confidence: float | None, log_me: Mapping[str, float]) -> Case:
    """Place a data set.

    Parameters
    ----------
    images_a_class : float
        Mean of the classes, training images.
    confidence : float or None
        Mean highest probability of the network's own classifier; None: it has none.
    log_me : mapping of str to float
        Score of each layer's codes, first to last. Without a confidence the set counts as alike
        where the last layer serves best.
    """
    large = images_a_class >= LARGE
    if confidence is not None:
        alike, by = confidence >= ALIKE, "confidence"
    else:
        alike, by = max(log_me, key=lambda layer: log_me[layer]) == list(log_me)[-1], "layers"
    number = {(False, True): 1, (True, True): 2, (False, False): 3, (True, False): 4}[large, alike]
    return Case(number, large, alike, by)
