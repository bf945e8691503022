"""The labelling page's application: lists, pictures, corrections; see :mod:`.session`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect

from .. import __version__
from ..errors import PipelineError
from ..serve.app import add_assets, add_errors
from ..serve.decoder import Decoder
from ..serve.limits import Limits, Refused
from ..serve.metrics import Metrics
from ..serve.schemas import problems
from ..serve.uploads import Budget, read_uploads
from .build import Adder
from .images import Conflict
from .session import Session
from .thumbs import SIDES, Thumbs

_SUFFIXES = {
    b"\xff\xd8": ".jpg", b"\x89P": ".png", b"GI": ".gif", b"RI": ".webp", b"BM": ".bmp",
    b"II": ".tif", b"MM": ".tif", b"P6": ".ppm", b"P5": ".pgm",
}  # fmt: skip
Kind = Literal["doubtful", "mistakes", "near", "unlabelled", "random", "changed", "all"]


class Action(BaseModel):
    """What somebody does to some images."""

    model_config = ConfigDict(extra="forbid")

    rows: list[int] = Field(max_length=10_000, min_length=1)
    what: Literal["label", "confirm", "skip", "exclude", "include", "group"]
    value: str = Field("", max_length=200)
    who: str = Field("", max_length=100)
    source: str = Field("", max_length=20)


class Who(BaseModel):
    """Somebody's name."""

    model_config = ConfigDict(extra="forbid")

    who: str = Field("", max_length=100)


class Desk:
    """What the requests of the page share."""

    def __init__(
        self, session: Session, adder: Adder, thumbs: Thumbs, limits: Limits, metrics: Metrics
    ) -> None:
        self.session = session
        self.adder = adder
        self.thumbs = thumbs
        self.limits = limits
        self.metrics = metrics
        self.decoder = Decoder(1, limits)
        self.budget = Budget(limits.held_bytes)
        self.adding = asyncio.Lock()
        self.making = asyncio.Semaphore(4)

    @asynccontextmanager
    async def running(self, app: FastAPI) -> AsyncIterator[None]:
        """Start the heads and the decoder; end them."""
        self.session.start()
        await self.decoder.start()
        self.metrics.ready.set(1)
        try:
            yield
        finally:
            await asyncio.to_thread(self.session.close)
            await self.decoder.stop()
            self.thumbs.close()


def build_app(desk: Desk) -> FastAPI:
    """Make the application of the labelling page."""
    app = FastAPI(
        title="cnn-codes: labels", version=__version__, lifespan=desk.running,
        docs_url=None, redoc_url=None, responses=problems(401, 403),
    )  # fmt: skip
    add_errors(app)
    add_assets(app, Path(__file__).parent, "page")
    session = desk.session

    @app.exception_handler(Conflict)
    async def conflict(request: Request, error: Conflict) -> Response:
        return await app.exception_handlers[Refused](  # type: ignore[no-any-return, misc]
            request, Refused(409, str(error))
        )

    @app.exception_handler(PipelineError)
    async def failed(request: Request, error: PipelineError) -> Response:
        refused = Refused(503, error.found, expected=error.expected, todo=error.todo, retry_s=5)
        return await app.exception_handlers[Refused](request, refused)  # type: ignore[no-any-return, misc]

    @app.get("/api/status", summary="Classes, counts, the estimate")
    async def status() -> dict[str, Any]:
        return await asyncio.to_thread(session.status)

    @app.get("/api/columns", response_class=Response, summary="All images, for the map")
    async def columns() -> Response:
        data = await asyncio.to_thread(session.columns)
        return Response(data, media_type="application/octet-stream")

    @app.get("/api/queue/{kind}", summary="A part of one list of images")
    async def queue(
        kind: Kind,
        start: Annotated[int, Query(ge=0)] = 0,
        count: Annotated[int, Query(ge=0, le=500)] = 100,
        test: bool = False,
        label: Annotated[str, Query(max_length=200)] = "",
    ) -> dict[str, Any]:
        def give() -> dict[str, Any]:
            rows = session.queue(kind, test=test, label=label)
            some = rows[start : start + count].tolist()
            return {"n": len(rows), "start": start, "images": session.describe(some)}

        return await asyncio.to_thread(give)

    @app.get("/api/images", responses=problems(422), summary="Some images by their numbers")
    async def images(rows: Annotated[str, Query(max_length=10_000)]) -> dict[str, Any]:
        try:
            numbers = [int(one) for one in rows.split(",")]
        except ValueError:
            raise Refused(422, "rows: not numbers with commas.") from None
        return {"images": await asyncio.to_thread(session.describe, numbers)}

    @app.post("/api/act", responses=problems(422, 503), summary="Correct, confirm, exclude, group")
    async def act(action: Action) -> dict[str, Any]:
        def do() -> dict[str, Any]:
            changed = session.act(
                action.rows, action.what, value=action.value, who=action.who, source=action.source
            )
            return {"changed": session.describe(changed)}

        return await asyncio.to_thread(do)

    @app.post("/api/undo", responses=problems(422, 503), summary="Take back the last action")
    async def undo(who: Who) -> dict[str, Any]:
        def do() -> dict[str, Any]:
            return {"changed": session.describe(session.undo(who.who))}

        return await asyncio.to_thread(do)

    @app.post(
        "/api/new",
        responses=problems(400, 408, 413, 415, 422, 503),
        summary="Add images without a label",
    )
    async def new(request: Request) -> dict[str, Any]:
        with desk.budget.released() as held:
            try:
                uploads = await read_uploads(request.headers, request.stream(), desk.limits, held)
            except Refused as refused:
                refused.closes = True
                raise
            except ClientDisconnect:
                raise Refused(400, "The client went away.") from None
            files, rejects = [], []
            for one in uploads:
                try:
                    await desk.decoder.picture(one.data, SIDES[0])  # it decodes, in the worker
                except Refused as refused:
                    rejects.append(f"{one.name}: {refused.found}")
                    continue
                suffix = _SUFFIXES.get(one.data[:2], ".img")
                files.append(await asyncio.to_thread(session.images.new_file, one.data, suffix))
        if not files:
            raise Refused(422, f"None can be used; the first: {rejects[0]}")
        async with desk.adding:
            rows, more = await asyncio.to_thread(desk.adder.add, files)
        return {"rows": rows, "rejects": [*rejects, *more]}

    @app.get("/thumb/{row}/{side}", responses=problems(404), response_class=Response)
    async def thumb(row: int, side: Literal["small", "large"]) -> Response:
        one = session.images[row]
        px = SIDES[side == "large"]
        data = desk.thumbs.known(one.sha256, px)
        if data is None:
            async with desk.making:
                data = await asyncio.to_thread(desk.thumbs.get, one.sha256, px, one.file)
        if data is None:
            raise Refused(404, "The image cannot be read.")
        headers = {"cache-control": "private, max-age=31536000, immutable"}
        return Response(data, media_type="image/webp", headers=headers)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        return Response(desk.metrics.text(), media_type="text/plain; version=0.0.4")

    return app
