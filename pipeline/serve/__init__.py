"""Predictions over HTTP: a page, an API, health, metrics. An extra: ``pip install .[serve]``.

Stands right of prediction. :func:`~cnn_codes.serve.running.serve` is the way in; the labelling
page stands on the same guard, limits and decoding workers. This module imports nothing, since the
decoding workers are started from within it.
"""
