"""Coverage of the interval of an accuracy over groups, by simulation.

    python -m benchmarks.intervals

Groups of 5 to 59 images, each with an accuracy from a beta distribution of mean .85. A row for each
number of groups and spread: how often the 95 % interval covers .85 in 250 draws, and its width;
of :func:`cnn_codes.results.bootstrap.accuracy_interval` with the groups, and without them.
"""

from __future__ import annotations

import numpy as np
from cnn_codes.results.bootstrap import accuracy_interval

MEAN, DRAWS = 0.85, 250


def simulate(n_groups: int, concentration: float, *, grouped: bool) -> tuple[float, float]:
    """Give the coverage and the mean width for groups whose accuracies spread so far."""
    random = np.random.default_rng(0)
    covered, widths = [], []
    for _ in range(DRAWS):
        sizes = random.integers(5, 60, n_groups)
        rates = random.beta(MEAN * concentration, (1 - MEAN) * concentration, n_groups)
        groups = np.repeat(np.arange(n_groups), sizes)
        hits = random.random(len(groups)) < rates[groups]
        low, high = accuracy_interval(hits, groups=groups if grouped else None)
        covered.append(low <= MEAN <= high)
        widths.append(high - low)
    return float(np.mean(covered)), float(np.mean(widths))


def main() -> None:
    """Print the table."""
    print("| groups | deviation | coverage | width | without groups | width |")
    print("|---|---|---|---|---|---|")
    for n_groups in (2, 3, 4, 6, 8, 12, 30):
        for concentration in (5.0, 20.0):
            deviation = (MEAN * (1 - MEAN) / (concentration + 1)) ** 0.5
            pair = [simulate(n_groups, concentration, grouped=one) for one in (True, False)]
            cells = " | ".join(f"{covered:.3f} | {width:.3f}" for covered, width in pair)
            print(f"| {n_groups} | {deviation:.2f} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
