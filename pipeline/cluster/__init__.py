"""More than one machine, with Ray: the connection, a pool of workers, tasks that share arrays.

Knows nothing of images or heads: stage one, prediction and the heads bring what is to be done.
"""

from .connection import Connection, connected
from .pool import Chunk, Pool
from .tasks import spread_tasks

__all__ = ["Chunk", "Connection", "Pool", "connected", "spread_tasks"]
