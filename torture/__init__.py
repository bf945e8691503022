"""Kills, full disks, many writers and damaged files, against the pipeline's command line.

``python3 -m torture`` needs the standard library alone; whatever needs h5py or Pillow runs under
the interpreter that has the pipeline installed. What is left on the disk is read back by code that
shares nothing with the pipeline.
"""
