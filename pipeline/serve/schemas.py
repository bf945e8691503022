"""What the server's answers look like: the models behind its OpenAPI description."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Problem(_Model):
    """Why a request was refused."""

    error: str = Field(description="what was found")
    expected: str = Field("", description="what would have been right")
    next: str = Field("", description="what to do next")


class Top(_Model):
    """A class and its probability."""

    class_: str = Field(alias="class")
    probability: float = Field(ge=0, le=1)


class Near(_Model):
    """A training image, and how far it is."""

    path: str = Field(description="relative to the data set's folder")
    class_: str = Field(alias="class")
    distance: float = Field(ge=0, description="0: equal codes, 2: opposite")
    picture: str | None = Field(None, description="address of a small picture; null: none here")


class Prediction(_Model):
    """What was found of one image."""

    name: str
    status: str = Field(description="'ok', 'abstain' or 'error'")
    predicted: str | None = Field(description="the most probable class; null: none named")
    probabilities: dict[str, float] | None = None
    top: list[Top] | None = None
    set: list[str] | None = Field(None, description="prediction set, where the run has one")
    distance: float | None = Field(None, description="to the nearest training image")
    unlike: bool | None = Field(
        None, description="farther from every training image than 99 % of them are from another"
    )
    nearest: list[Near] | None = None
    error: str | None = Field(None, description="why the image cannot be used")


class Predictions(_Model):
    """The answer to a prediction request: one entry an image, in the order given."""

    run: str
    classes: list[str]
    predictions: list[Prediction]


class Run(_Model):
    """A run that is served."""

    name: str
    run: str
    classes: list[str]
    engine: str
    notes: list[str]
    neighbours: bool = Field(description="whether training images are looked up")


class Runs(_Model):
    """All runs that are served, the default one first."""

    runs: list[Run]


class State(_Model):
    """Whether the server is alive, or ready."""

    status: str


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the error answers of an operation."""
    words = {
        400: "Malformed, or no image in it",
        401: "The token is missing or wrong",
        403: "From another site",
        404: "No such run or picture",
        408: "The body did not arrive in time",
        413: "Too large, or too many files",
        415: "Not a type, or an image format, that is read",
        422: "An image that cannot be decoded, or a parameter out of its range",
        503: "Not ready, or overloaded; Retry-After says when to try again",
    }
    return {status: {"model": Problem, "description": words[status]} for status in statuses}


_FILE = {"type": "string", "format": "binary"}
# An image of one pixel would be an honest example too, but no tool shows it; curl says more.
BODY = {
    "requestBody": {
        "required": True,
        "description": "One image as it is, or several as the files of a form. For example: "
        "`curl -F images=@a.jpg -F images=@b.png http://127.0.0.1:8000/predict` or "
        "`curl --data-binary @a.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8000/predict`",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {"images": {"type": "array", "items": _FILE, "minItems": 1}},
                },
                "encoding": {"images": {"contentType": "image/jpeg, image/png, image/webp"}},
            },
            "image/jpeg": {"schema": _FILE},
            "image/png": {"schema": _FILE},
            "application/octet-stream": {"schema": _FILE},
        },
    }
}
EXAMPLE = {
    "run": "lunch",
    "classes": ["hotdog", "not-hotdog"],
    "predictions": [
        {
            "name": "a.jpg",
            "status": "ok",
            "predicted": "hotdog",
            "probabilities": {"hotdog": 0.97, "not-hotdog": 0.03},
            "distance": 0.61,
            "unlike": False,
            "nearest": [
                {
                    "path": "train/hotdog/12.png",
                    "class": "hotdog",
                    "distance": 0.61,
                    "picture": "/picture?run=lunch&path=train%2Fhotdog%2F12.png",
                }
            ],
        },
        {
            "name": "b.txt",
            "status": "error",
            "predicted": None,
            "error": "not an image of a known format (starts with 68 65 6c 6c)",
        },
    ],
}
