"""More than one machine, with Ray: the connection, a pool of workers, a gang, tasks.

Knows nothing of images or heads: stage one, prediction and the heads bring what is to be done.
"""

from .connection import Connection, connected
from .gang import run_together
from .pool import GIVEN_UP, Chunk, Pool
from .tasks import spread_tasks

__all__ = ["GIVEN_UP", "Chunk", "Connection", "Pool", "connected", "run_together", "spread_tasks"]
