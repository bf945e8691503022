"""Methods compared on the same test images, with paired tests.

Right of the results: what is compared are runs and their stored predictions.
"""
