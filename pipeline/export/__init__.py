"""A run as files that others can use: one ONNX or OpenVINO model, or a folder for any browser.

>>> from cnn_codes.export import export_run  # doctest: +SKIP
>>> export_run("results/hotdog/svm-....json", "exported")  # doctest: +SKIP
"""

from .run import Exported, export_run

__all__ = ["Exported", "export_run"]
