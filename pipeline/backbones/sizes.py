"""Networks of a fixed input size at another one: position embeddings interpolated.

Convolutional networks take any size. Transformers of timm have position embeddings for one; their
own ``set_input_size`` interpolates them (bicubic, as timm does when weights are loaded with
``img_size``), so that the graph that is exported has one size and no interpolation in it.
"""

from __future__ import annotations

import warnings

from torch import nn

from ..errors import BackboneError
from .network import survey


def fit_size(network: nn.Module, size: int) -> nn.Module:
    """Make the network take images of `size` x `size` px; it is changed in place where need is.

    Raises
    ------
    BackboneError
        It does not take this size.
    """
    try:
        survey(network, size)
        return network
    except BackboneError as error:
        change = getattr(network, "set_input_size", None)
        if not callable(change):
            raise
        refused = error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            change(img_size=(size, size))
    except (RuntimeError, ValueError, AssertionError, TypeError, ZeroDivisionError) as error:
        raise refused from error
    survey(network, size)
    return network.eval()
