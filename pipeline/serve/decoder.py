"""A pool of decoding workers, one image at a time each; a dead one is replaced.

Strangers' files are decoded outside of the server. A worker that crashes, is killed or takes too
long costs at most the request whose image it held: that image is tried once more in another
worker, and refused if that one dies too.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backbones.preprocess import Preprocessing, Views
from .frames import HEAD, pack, sizes
from .limits import Limits, Refused

_START_S = 60.0
_PACKAGE = str(__package__)


@lru_cache(maxsize=64)
def _asked(preprocessing: Preprocessing, views: Views) -> dict[str, Any]:
    """Spell which views are wanted; the same for every image of a run."""
    return {
        "do": "views",
        "preprocessing": preprocessing.as_dict(),
        "views": (views.kind, views.count, views.seed),
    }


class _DiedError(Exception):
    """A worker ended, or answered what no worker answers."""


class _Worker:
    """One process and its pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    async def ask(self, head: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        assert self.process.stdin is not None
        start, body = pack(head, data)
        try:
            self.process.stdin.write(start)
            self.process.stdin.write(body)
            await self.process.stdin.drain()
            return await self.read()
        except (OSError, EOFError, ValueError, RuntimeError) as error:  # RuntimeError: uvloop's
            raise _DiedError from error

    async def read(self) -> tuple[dict[str, Any], bytes]:
        source = self.process.stdout
        assert source is not None
        n_head, n_body = sizes(await source.readexactly(HEAD.size))
        head = json.loads(await source.readexactly(n_head))
        if not isinstance(head, dict):
            raise ValueError("a message without a head")
        return head, await source.readexactly(n_body)

    async def end(self) -> None:
        if self.alive:
            with suppress(ProcessLookupError):
                self.process.kill()
        await self.process.wait()


class Decoder:
    """Workers that decode, `n_workers` of them.

    Parameters
    ----------
    n_workers : int
        Processes.
    limits : Limits
        Pixels and seconds per image.
    """

    def __init__(self, n_workers: int, limits: Limits) -> None:
        self._limits = limits
        self._n_workers = n_workers
        self._idle: asyncio.Queue[_Worker] = asyncio.Queue()
        self._all: set[_Worker] = set()
        self._restarts: set[asyncio.Task[None]] = set()
        self._open = False
        self.n_restarts = 0

    @property
    def pids(self) -> list[int]:
        """Process ids of the living workers."""
        return [one.process.pid for one in self._all if one.alive]

    async def start(self) -> None:
        """Start the workers; returns when each is ready.

        Raises
        ------
        RuntimeError
            A worker does not start.
        """
        self._open = True
        await asyncio.gather(*(self._add() for _ in range(self._n_workers)))

    async def stop(self) -> None:
        """End the workers."""
        self._open = False
        for task in list(self._restarts):
            task.cancel()
        await asyncio.gather(*self._restarts, return_exceptions=True)
        await asyncio.gather(*(one.end() for one in self._all))
        self._all.clear()

    async def views(
        self, data: bytes, preprocessing: Preprocessing, views: Views
    ) -> NDArray[np.uint8]:
        """Decode an image file to the views (V, ...), uint8, that a run's networks take.

        Raises
        ------
        Refused
            No image (415), too large (413), damaged (422), or one that workers die of (422).
        """
        answer, body = await self._ask(_asked(preprocessing, views), data)
        shape = (views.count, *preprocessing.shape)
        if tuple(answer.get("shape", ())) != shape or len(body) != int(np.prod(shape)):
            raise Refused(422, "damaged: its decoder gave no pixels")
        return np.frombuffer(body, np.uint8).reshape(shape)

    async def picture(self, data: bytes, side: int) -> bytes:
        """Shrink an image file to a WebP file of at most `side` pixels; raises as :meth:`views`."""
        _, body = await self._ask({"do": "picture", "side": side}, data)
        return body

    async def pixels(self, data: bytes, side: int) -> NDArray[np.uint8]:
        """Decode an image file to (H, W, 3), at most `side` pixels; raises as :meth:`views`."""
        answer, body = await self._ask({"do": "pixels", "side": side}, data)
        shape = tuple(answer.get("shape", ()))
        if len(shape) != 3 or shape[2] != 3 or max(shape) > side or len(body) != np.prod(shape):
            raise Refused(422, "damaged: its decoder gave no pixels")
        return np.frombuffer(body, np.uint8).reshape(shape)

    async def _ask(self, what: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        head = what | {"pixels": self._limits.pixels}
        for _ in range(2):
            worker = await self._idle.get()
            while not worker.alive:  # killed while it was idle: the image is not to blame
                self._replace(worker)
                worker = await self._idle.get()
            sound = False
            try:
                async with asyncio.timeout(self._limits.decode_s):
                    answer, body = await worker.ask(head, data)
                sound = True
            except TimeoutError:
                raise Refused(
                    422, f"not decoded within {self._limits.decode_s:g} s", expected="an image"
                ) from None
            except _DiedError:
                continue
            finally:  # also where the client went away: its answer must not reach the next one
                if sound:
                    self._idle.put_nowait(worker)
                else:
                    self._replace(worker)
            if "error" in answer:
                status = answer.get("status")
                known = status if status in (413, 415, 422) else 422
                raise Refused(known, str(answer["error"]), expected="an image that can be decoded")
            return answer, body
        raise Refused(422, "damaged: two decoders ended at it", expected="an image")

    def _replace(self, worker: _Worker) -> None:
        """End a worker and start another, while the others go on."""
        self.n_restarts += 1

        async def restart() -> None:
            await worker.end()
            self._all.discard(worker)
            while self._open:
                try:
                    await self._add()
                    return
                except (
                    RuntimeError,
                    OSError,
                ):  # killed already, or out of memory for now
                    self.n_restarts += 1
                    await asyncio.sleep(1.0)

        task = asyncio.get_running_loop().create_task(restart())
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)

    async def _add(self) -> None:
        top, _, _ = _PACKAGE.partition(".")
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH", "")])])
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", f"{top}.serve.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**20,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is for the server, which ends its workers last
        )  # fmt: skip
        worker = _Worker(process)
        self._all.add(worker)
        try:
            async with asyncio.timeout(_START_S):
                head, _ = await worker.read()
        except (TimeoutError, OSError, EOFError, ValueError) as error:
            await worker.end()
            self._all.discard(worker)
            raise RuntimeError("a decoding worker does not start") from error
        except BaseException:
            await worker.end()
            raise
        if head != {"ready": True}:
            await worker.end()
            raise RuntimeError("a decoding worker does not start")
        self._idle.put_nowait(worker)
