"""Pretrained networks by their own names: weights, preprocessing, layers, exported graphs.

:mod:`~cnn_codes.backbones.card` is what the rest of the pipeline asks: it answers from a small
file without importing torch, once a network has been looked at.
"""

from .card import Card, load_card

__all__ = ["Card", "load_card"]
