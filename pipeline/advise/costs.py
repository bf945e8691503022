"""What a strategy will cost on this machine, from rates that were measured on it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

from ..compare.runs import Network
from ..context import Context
from ..results.runs import list_records
from ..settings import FinetuneSettings

# Seconds to train on an image against seconds to take it through the network once (stage one's
# engine), where nothing was trained here yet, on two cores. EfficientNet-Lite0: 150 images/s
# through ONNX Runtime, 130 trained from the cached trunk (the last three stages), 23 through the
# whole network. The last stage alone is 0.6 in ResNet-18 (layer4) and 0.12 in Lite0, whose last
# stage is one convolution: the dearer of the two.
LAST, LATE, WHOLE = 0.6, 1.2, 6.5
TRUNK_VIEWS = 4  # of each training image where stage three chooses them
LEAST_S = 1.0  # shorter trainings say nothing of the rate


@dataclass(frozen=True)
class Rate:
    """Seconds to train on one image once, and where that is known from.

    Attributes
    ----------
    seconds : float
    n_runs : int
        Runs on this machine that it is the median of; 0: estimated from stage one's rate.
    """

    seconds: float
    n_runs: int


def training_rate(context: Context, network: Network, unfreeze: str) -> Rate:
    """Find how long training on one image took in the runs that are there, of any data set."""
    found = []
    for record in list_records(Path(context.places.results), on_error=lambda error: None):
        same = (
            record["method"] == "finetune"
            and record["kind"] == "run"
            and record["model"] == network.model
            and record.get("unfreeze") == unfreeze
            and record["size"] == int(network.codes.config["size"])
        )
        if same and record["times_s"].get("fit", 0) >= LEAST_S:
            seconds = [row["seconds"] for row in record.get("curve", ()) if row.get("seconds")]
            n_train = sum(record["splits"]["train"].values())
            if seconds:  # of each epoch of the choice; what a refit takes comes on top of it
                found.append(sum(seconds) / (len(seconds) * n_train))
    if found:
        return Rate(statistics.median(found), len(found))
    times = {"all": WHOLE, "last": LAST}.get(unfreeze, LATE)
    return Rate(times * network.seconds_per_image, 0)


def training_seconds(
    network: Network, rate: Rate, settings: FinetuneSettings, *, n_train: int, n_images: int
) -> dict[str, float]:
    """Estimate what a fine-tuning takes.

    Parameters
    ----------
    n_train, n_images : int
        Images that are not test; all images.

    Returns
    -------
    dict of str to float
        Seconds: ``trunk`` (once, then cached), ``fit``, ``total``.
    """
    trunk = 0.0
    if settings.unfreeze != "all":
        n_views = int(network.codes.config["n_views"])
        of_train = (
            TRUNK_VIEWS * n_train if n_views == 1 else 0
        )  # else the views of VIEWS serve both
        trunk = (of_train + n_views * n_images) * network.seconds_per_image / n_views
    passes = settings.epochs * (1 - settings.val_fraction) + settings.refit * settings.epochs
    fit = passes * n_train * rate.seconds  # again on train and val together, where refitted
    return {"trunk": trunk, "fit": fit, "total": trunk + fit}
