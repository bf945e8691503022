"""What has been run: listed, filtered, set side by side, handed to other tools.

Right of the results, and of the paired tests of the comparison; reads records and predictions
alone. Imports neither torch nor scikit-learn, for a list must take no time.
"""

from .columns import COLUMNS, columns_of, conditions, ordered
from .listing import Listing, Run, find, list_runs

__all__ = [
    "COLUMNS",
    "Listing",
    "Run",
    "columns_of",
    "conditions",
    "find",
    "list_runs",
    "ordered",
]
