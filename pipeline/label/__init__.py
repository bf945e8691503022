"""The correction loop: a page on which labels are corrected, and a head that follows at once.

Stands on the server's guard, limits and workers, on the evidence about labels, and on the order
worth labelling. Corrections go to the file of :mod:`cnn_codes.datasets.corrections`.
"""
