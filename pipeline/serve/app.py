"""The application: prediction, its page, health, metrics, and their description.

Made by :func:`build_app`; :mod:`.running` binds it to a port.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from .. import __version__
from ..errors import BackboneError
from ..predict import Outcome
from ..predict.output import Table
from .batching import Admission
from .decoder import Decoder
from .guard import Guard
from .limits import Limits, Refused
from .metrics import Metrics
from .models import Served, Shelf
from .schemas import BODY, EXAMPLE, Predictions, Runs, State, problems
from .uploads import Budget, Held, Upload, read_uploads

log = logging.getLogger("cnn_codes.serve")
_HERE = Path(__file__).parent
_PICTURE_PX = 176
_EXPLAINED_PX = 640
_PICTURES_BYTES = 32_000_000


class Hall:
    """What the requests of one server share: workers, runs, counters, limits.

    Parameters
    ----------
    shelf : Shelf
        The runs.
    limits : Limits
    metrics : Metrics
    n_decoders : int
        Decoding workers.
    """

    def __init__(self, shelf: Shelf, limits: Limits, metrics: Metrics, n_decoders: int) -> None:
        self.shelf = shelf
        self.limits = limits
        self.metrics = metrics
        self.decoder = Decoder(n_decoders, limits)
        self.budget = Budget(limits.held_bytes)
        self.admission = Admission(limits.waiting)
        self.state = "starting"
        self.failure: Exception | None = None
        self.give_up: Callable[[], None] = lambda: None
        self.explaining = asyncio.Lock()
        self._pictures: OrderedDict[tuple[str, str], bytes] = OrderedDict()

    @asynccontextmanager
    async def running(self, app: FastAPI) -> AsyncIterator[None]:
        """Start and load behind the open port; end everything when the port is closed."""
        tasks = [asyncio.get_running_loop().create_task(self._start())]
        try:
            yield
        finally:
            self.state = "ending"
            self.metrics.ready.set(0)
            for task in tasks:
                task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*tasks)
            await self.shelf.close()
            await self.decoder.stop()

    async def _start(self) -> None:
        try:
            await asyncio.gather(self.decoder.start(), self.shelf.load())
        except Exception as error:
            self.failure, self.state = error, "failed"
            self.give_up()
            return
        self.state = "ready"
        self.metrics.ready.set(1)
        log.info("ready: %s", ", ".join(self.shelf.names))
        await self.shelf.watch(self.limits.watch_s)

    def served(self, run: str) -> Served:
        """Give a run that is ready.

        Raises
        ------
        Refused
            404 or 503.
        """
        if run and run not in self.shelf.names:
            raise Refused(
                404, f"There is no run {run[:80]!r} here.", expected=", ".join(self.shelf.names)
            )
        found = self.shelf.get(run)
        if self.state != "ready" or found is None:
            raise Refused(503, f"The server is {self.state}.", todo="try again in 2 s", retry_s=2)
        return found

    async def predict(self, served: Served, upload: Upload) -> Outcome | Refused:
        """Decode one image and run it; what is wrong with the image is a value, not an error."""
        try:
            views = await self.decoder.views(
                upload.data, served.classifier.preprocessing, served.classifier.views
            )
        except Refused as refused:
            return refused
        return await served.batcher.submit(views)

    async def explain(self, served: Served, upload: Upload, target: str) -> tuple[bytes, str]:
        """Give a PNG of where a class is seen in an image, and the method's name.

        Raises
        ------
        Refused
            The image, or the class, is none; or the run uses several networks.
        """
        if target and target not in served.classifier.classes:
            raise Refused(404, f"There is no class {target[:80]!r}.")
        pixels = await self.decoder.pixels(upload.data, _EXPLAINED_PX)
        async with self.explaining:
            try:
                return await asyncio.to_thread(served.explained, pixels, target)
            except BackboneError as error:  # of a run on several networks
                raise Refused(404, error.found, expected=error.expected) from error

    async def picture(self, served: Served, path: str) -> bytes:
        """Give a small WebP picture of a training image.

        Raises
        ------
        Refused
            404: it is none that may be shown, or is gone.
        """
        if path not in served.pictures or served.folder is None:
            raise Refused(404, "There is no such training image here.")
        key = (served.name, path)
        if key in self._pictures:
            self._pictures.move_to_end(key)
            return self._pictures[key]
        file = served.folder / path
        try:
            data = await asyncio.to_thread(file.read_bytes)
            picture = await self.decoder.picture(data, _PICTURE_PX)
        except (OSError, Refused):
            raise Refused(404, "The training image cannot be read any more.") from None
        self._pictures[key] = picture
        while sum(map(len, self._pictures.values())) > _PICTURES_BYTES:
            self._pictures.popitem(last=False)
        return picture


class Counted:
    """ASGI middleware that counts requests and their seconds by route."""

    def __init__(self, app: Any, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request on, and note its status."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def noted(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.request_s.labels(path).observe(time.perf_counter() - began)


def build_app(hall: Hall) -> FastAPI:
    """Make the application of a server that predicts; :func:`guarded` goes around it."""
    app = FastAPI(
        title="cnn-codes",
        version=__version__,
        summary="Image classification by runs of this pipeline.",
        lifespan=hall.running,
        docs_url=None,  # both would be fetched from elsewhere
        redoc_url=None,
        responses=problems(401, 403),
    )
    add_errors(app)
    add_assets(app, _HERE, "page")

    @app.post(
        "/predict",
        response_model=Predictions,
        responses={
            **problems(400, 404, 408, 413, 415, 422, 503),
            200: {"content": {"application/json": {"example": EXAMPLE}}},
        },
        openapi_extra=BODY,
        summary="Classify one image or several",
    )
    async def predict(
        request: Request,
        run: Annotated[str, Query(max_length=200, description="empty: the first")] = "",
        nearest: Annotated[int, Query(ge=0, le=20, description="nearest training images")] = 0,
        top: Annotated[int, Query(ge=0, le=1000, description="most probable classes")] = 0,
    ) -> Response:
        served = hall.served(run)
        if hall.admission.n_waiting >= hall.limits.waiting:
            raise _closing(hall.admission.overload())
        with hall.budget.released() as held, served.in_use():
            uploads = await _uploads(hall, request, held)
            hall.admission.enter(len(uploads))
            try:
                found = await asyncio.gather(*(hall.predict(served, one) for one in uploads))
            finally:
                hall.admission.leave(len(uploads))
        for one in found:
            status = "error" if isinstance(one, Refused) else "ok"
            hall.metrics.images.labels(served.name, status).inc()
        if all(isinstance(one, Refused) for one in found):
            raise _together(found, uploads)
        body = {
            "run": served.name,
            "classes": list(served.classifier.classes),
            "predictions": [
                _row(served, upload, one, nearest, top)
                for upload, one in zip(uploads, found, strict=True)
            ],
        }
        return Response(json.dumps(body), media_type="application/json")

    @app.post(
        "/explain",
        responses={
            **problems(400, 404, 408, 413, 415, 422, 503),
            200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}},
        },
        response_class=Response,
        openapi_extra=BODY,
        summary="Where in an image its class is seen",
    )
    async def explain(
        request: Request,
        run: Annotated[str, Query(max_length=200, description="empty: the first")] = "",
        target: Annotated[
            str, Query(max_length=200, description="a class; empty: the most probable")
        ] = "",
    ) -> Response:
        served = hall.served(run)
        with hall.budget.released() as held, served.in_use():
            uploads = await _uploads(hall, request, held)
            if len(uploads) > 1:
                raise Refused(413, f"{len(uploads)} images.", expected="one")
            hall.admission.enter(1)
            try:
                png, method = await hall.explain(served, uploads[0], target)
            finally:
                hall.admission.leave(1)
        return Response(png, media_type="image/png", headers={"x-method": method})

    @app.get("/runs", responses=problems(503), summary="Which runs are served")
    async def runs() -> Runs:
        hall.served("")
        served = [one for name in hall.shelf.names if (one := hall.shelf.get(name))]
        return Runs.model_validate(
            {
                "runs": [
                    {
                        "name": one.name,
                        "run": one.classifier.run,
                        "classes": list(one.classifier.classes),
                        "engine": one.classifier.engine,
                        "notes": list(one.notes),
                        "neighbours": one.neighbours is not None,
                    }
                    for one in served
                ]
            }
        )

    @app.get(
        "/picture",
        responses={
            **problems(404, 422, 503),
            200: {"content": {"image/webp": {"schema": {"type": "string", "format": "binary"}}}},
        },
        response_class=Response,
        summary="A small picture of a training image",
    )
    async def picture(
        path: Annotated[str, Query(max_length=4096)],
        run: Annotated[str, Query(max_length=200)] = "",
    ) -> Response:
        data = await hall.picture(hall.served(run), path)
        return Response(
            data, media_type="image/webp", headers={"cache-control": "private, max-age=86400"}
        )

    @app.get("/healthz", summary="Alive")
    async def healthz() -> State:
        return State(status="alive")

    @app.get("/readyz", responses=problems(503), summary="Loaded and warmed")
    async def readyz() -> State:
        hall.served("")
        return State(status="ready")

    @app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        summary="Counters, in Prometheus' format",
    )
    async def metrics() -> Response:
        hall.metrics.waiting.set(hall.admission.n_waiting)
        hall.metrics.held.set(hall.budget.held)
        hall.metrics.restarts.set(hall.decoder.n_restarts)
        return Response(hall.metrics.text(), media_type="text/plain; version=0.0.4")

    return app


def guarded(app: FastAPI, metrics: Metrics, *, host: str, token: str) -> Any:
    """Put the guard and the counters around an application."""
    return Guard(Counted(app, metrics), host=host, token=token)


def add_errors(app: FastAPI) -> None:
    """Answer every error as a Problem."""

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        headers = {"retry-after": str(error.retry_s)} if error.retry_s else {}
        if error.closes:
            headers["connection"] = "close"
        return JSONResponse(error.body(), error.status, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"][1:]))
        return JSONResponse({"error": f"{where}: {first['msg']}."[:500]}, 422)

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)


def add_assets(app: FastAPI, folder: Path, page: str) -> None:
    """Serve ``<page>.html`` at the root, its script, and the style that all pages share."""
    report = Path(__file__).parents[1] / "report" / "page.css"
    style = report.read_text(encoding="utf-8") + (_HERE / "page.css").read_text(encoding="utf-8")
    own = folder / f"{page}.css"
    if own != _HERE / "page.css" and own.is_file():
        style += own.read_text(encoding="utf-8")
    script = (folder / f"{page}.js").read_text(encoding="utf-8")
    html = (folder / f"{page}.html").read_text(encoding="utf-8")
    for path, text, media in (
        ("/", html, "text/html"),
        ("/static/page.css", style, "text/css"),
        ("/static/page.js", script, "text/javascript"),
    ):
        app.add_api_route(path, _fixed(text, media), methods=["GET"], include_in_schema=False)


def _fixed(text: str, media: str) -> Any:
    body = text.encode()

    async def give() -> Response:
        return Response(body, media_type=media, headers={"cache-control": "no-cache"})

    return give


async def _uploads(hall: Hall, request: Request, held: Held) -> list[Upload]:
    """Read the images of a request; after a refusal its connection ends."""
    try:
        return await read_uploads(request.headers, request.stream(), hall.limits, held)
    except Refused as refused:
        raise _closing(refused) from refused.__cause__
    except ClientDisconnect:
        raise _closing(Refused(400, "The client went away.")) from None


def _closing(refused: Refused) -> Refused:
    """Mark an answer after which the rest of the body is not read."""
    refused.closes = True
    return refused


def _together(found: list[Any], uploads: list[Upload]) -> Refused:
    """Make one answer of images of which none can be used: the first's."""
    first: Refused = found[0]
    if len(found) == 1:
        return first
    return Refused(
        first.status, f"None of the {len(found)} images can be used; the first, "
        f"{uploads[0].name}: {first.found}", expected=first.expected,
    )  # fmt: skip


def _row(
    served: Served, upload: Upload, found: Outcome | Refused, nearest: int, top: int
) -> dict[str, Any]:
    """Give what is known of one image, as the schema has it."""
    if isinstance(found, Refused):
        return {
            "name": upload.name, "status": "error", "predicted": None, "error": found.found
        }  # fmt: skip
    known = served.neighbours
    table = Table(
        served.classifier.classes, format="jsonl", top=top,
        limit=known.limit if known else None, n_nearest=nearest if known else 0,
        sets=bool(served.classifier.model.output.sets),
    )  # fmt: skip
    row = table.row(found)
    row["name"] = upload.name
    for name in ("path", "reason"):
        row.pop(name)
    for one in row.get("nearest", ()):
        if one["path"] in served.pictures:
            asked = urlencode({"run": served.name, "path": one["path"]})
            one["picture"] = f"/picture?{asked}"
    return row
