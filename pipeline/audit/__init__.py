"""What is wrong, or merely odd, with a data set's images, said before anybody believes a figure.

:func:`header_findings` is cheap and runs with every stage; :func:`audit` also decodes every image
in full and draws a picture of the classes. Facts are kept by the images' bytes, so that a set
that has not changed costs next to nothing.
"""

from .findings import Finding
from .report import Report, audit, header_findings

__all__ = ["Finding", "Report", "audit", "header_findings"]
