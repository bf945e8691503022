"""Runs under the interpreter that has h5py: reads back what is on the disk, without the pipeline.

Started as a script. A line of JSON (paths) comes in, a line of JSON goes out: by path the rows by
the images' digests, a digest of every dataset, or the error. Of arrays (``.npz``): whether NumPy
reads them all.
"""

import hashlib
import json
import sys
from typing import Any

import h5py
import numpy as np


def read(path: str) -> dict[str, Any]:
    """Read one file of codes, or one part of one."""
    if path.endswith(".npz"):
        with np.load(path, allow_pickle=False) as file:
            return {"data": {name: str(file[name].shape) for name in file.files}}
    with h5py.File(path, "r", locking=False) as file:
        whole = "images" in file
        names = (file["images/sha256"] if whole else file["sha256"])[()].tolist()
        codes = file["codes"]
        rows = {}
        for at, one in enumerate(names):
            total = hashlib.sha256()
            for name in sorted(codes):
                total.update(codes[name][at].tobytes())
            rows[one.decode()] = total.hexdigest()
        data = {}

        def visit(name: str, item: object) -> None:
            if isinstance(item, h5py.Dataset):
                data[name] = hashlib.sha256(item[()].tobytes()).hexdigest() + str(item.shape)

        file.visititems(visit)
        rejects = file["rejects/sha256"] if whole else file["reject_sha256"]
        return {"rows": rows, "data": data if whole else {}, "rejects": int(rejects.shape[0])}


for line in sys.stdin:
    found = {}
    for name in json.loads(line):
        try:
            found[name] = read(name)
        except Exception as error:
            found[name] = {"error": repr(error)}
    print(json.dumps(found), flush=True)
