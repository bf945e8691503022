"""Codes: a frozen network run once over the images, its output kept in HDF5.

Between data sets and networks on the left, and everything that computes on codes on the right.
``extract`` brings a file of codes up to date, ``reader`` opens one, ``verify`` checks one.
``hdf5`` alone touches HDF5. Modules are imported where they are needed: reading codes needs
neither torch nor ONNX Runtime.
"""
