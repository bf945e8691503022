"""Which networks have codes of a data set in the cache, and how they were asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ..codes.reader import open_codes
from ..errors import CacheError, SettingsError
from ..settings import CodesSettings, from_mapping


def named_networks(names: Iterable[str], usual: CodesSettings) -> list[CodesSettings]:
    """Turn the setting MODELS into what is asked of each network.

    Parameters
    ----------
    names : iterable of str
        ``MODEL`` or ``MODEL:WEIGHTS``, such as ``resnet18:none``.
    usual : CodesSettings
        What all have in common; its weights are those of networks that name none.

    Raises
    ------
    SettingsError
        An empty name.
    """
    asked = {}
    for name in names:
        model, colon, weights = name.partition(":")
        if not model or (colon and not weights):
            raise SettingsError(
                f"MODELS: '{name}' names no network.", expected="MODEL or MODEL:WEIGHTS"
            )
        asked[model, weights] = replace(usual, model=model, weights=weights or usual.weights)
    return list(asked.values())


def cached_networks(folder: Path, usual: CodesSettings) -> list[CodesSettings]:
    """Find the networks whose last layer's codes are there, with the views and fit of `usual`.

    Parameters
    ----------
    folder : Path
        ``cache/<data>``.
    usual : CodesSettings
        The network asked for; it is not among those given.

    Returns
    -------
    list of CodesSettings
        One a network and its weights, by name: with all layers where their codes are there, else
        the last layer alone. Files that cannot be read are passed over.
    """
    found: dict[tuple[str, str], CodesSettings] = {}
    for path in sorted(folder.glob("*.h5")):
        try:
            config = open_codes(path).config
            asked: CodesSettings = from_mapping(
                CodesSettings, {k: _tuple(v) for k, v in config["asked"].items()}
            )
            if config["pool"] == "mean":  # the default, which earlier versions called so
                asked = replace(asked, pool="default")
        except (CacheError, SettingsError, KeyError, TypeError, AttributeError):
            continue
        same = all(
            getattr(asked, name) == getattr(usual, name)
            for name in ("views", "resize", "size", "precision", "dtype", "pool")
        )
        key = (asked.model, asked.weights)
        if not same or key == (usual.model, usual.weights):
            continue
        if asked.layers == ("all",) or (asked.layers == ("final",) and key not in found):
            found[key] = asked
    return [found[key] for key in sorted(found)]


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value
