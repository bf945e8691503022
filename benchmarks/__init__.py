"""Measurements of speed, memory and accuracy, run by ``make bench``.

Every speed is a ratio of two things run in turn within one process, since machines differ and
are noisy. Each module opens with the hypothesis it tests.
"""
