"""Why an image is classified as it is: which of its regions speak for the class.

>>> from cnn_codes.explain import Explainer  # doctest: +SKIP
>>> found = Explainer.load("results/hotdog/svm-....json").explain("lunch.jpg")  # doctest: +SKIP
>>> found.overlay().save("why.png")  # doctest: +SKIP

For a linear head on mean-pooled codes the map is exact: it sums to the logit. For everything else
it is gradient x activation, and says so.
"""

from .explainer import Explainer
from .explanation import Explanation

__all__ = ["Explainer", "Explanation"]
