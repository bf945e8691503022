"""The solver of the linear heads: L-BFGS in whitened coordinates, all folds at once.

Minimises ``|W|^2 / 2 + C * sum_i weight_i * loss(z_i W + b, label_i)`` with b unpenalised, for F
folds and J outputs together: a pass over the codes serves them all, as two matrix products a
block. Three things make it fast:

- In the basis of :class:`cnn_codes.heads.design.Design` the Hessian of output j is close to
  ``1 + C * h_j * variance``, where h_j is the summed second derivative of the loss (Boehning 1992
  uses its upper bound; here it is measured once for each C). Dividing each coordinate by its
  root leaves a problem on which L-BFGS (Liu and Nocedal 1989) needs some ten passes at any C.
- Half the squared gradient in these coordinates estimates how far the objective is above its
  minimum (the Newton decrement), which gives a stopping rule in units of the objective.
- Outputs that are separate problems (one class against the rest) have their own step and memory,
  and wait for nobody: a pass in which one's step is too long is a good step for the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .design import Block, Design, Floats
from .losses import LOSSES, n_outputs

MEMORY = 8
MEMORY_BYTES = 256 * 2**20  # of L-BFGS's pairs, beyond which it keeps fewer
SUFFICIENT = 1e-4  # Armijo's constant
SHORTEST = 1e-12


@dataclass(eq=False)
class Solution:
    """Weights of F folds.

    Attributes
    ----------
    weight : float (R, F, J)
        For the columns of the design.
    bias : float (F, J)
    objective : float64 (F,)
    converged : bool
    passes : int
        Over the codes.
    """

    weight: Floats
    bias: Floats
    objective: NDArray[np.float64]
    converged: bool
    passes: int


class Linear:
    """One loss on one design, for several folds.

    Parameters
    ----------
    design : Design
    method : str
        ``softmax``, ``svm`` or ``ridge``.
    labels : int32 (N,)
        Of the design's examples.
    weights : float64 (N, F)
        What each example counts in each fold's objective; 0 where held out.
    n_classes : int
        K.
    """

    def __init__(
        self,
        design: Design,
        method: str,
        labels: NDArray[np.int32],
        weights: NDArray[np.float64],
        n_classes: int,
    ) -> None:
        self.design, self.labels = design, labels
        self.loss = LOSSES[method]
        self.weights = weights.astype(design.dtype)
        self.n_folds, self.n_out = weights.shape[1], n_outputs(n_classes)
        basis = design.basis
        self._variance = basis.variance[:, None, None]  # (Q, 1, 1)
        self._vectors = None if design.rotated else basis.vectors.astype(design.dtype)
        self._rest = basis.rest

    @property
    def start(self) -> Solution:
        """All weights zero."""
        shape = (self.n_folds, self.n_out)
        return Solution(
            np.zeros((self.design.n_columns, *shape), self.design.dtype),
            np.zeros(shape, self.design.dtype),
            np.full(self.n_folds, np.inf),
            False,
            0,
        )

    def _pass(
        self, weight: Floats, bias: Floats, curvature: bool
    ) -> tuple[NDArray[np.float64], Floats, Floats, NDArray[np.float64] | None]:
        """Loss (F, J), its gradient (R, F, J) and (F, J), and curvature (F, J), without C."""
        flat = np.ascontiguousarray(weight.reshape(len(weight), -1))  # (R, F * J)

        # Codes are checked to be finite. With AVX-512, OpenBLAS has been seen to flag finite
        # products of a few rows as invalid; what counts is the loss, which minimise() checks.
        @np.errstate(invalid="ignore")
        def work(block: Block, total: list[Any] | None) -> list[Any]:
            scores = (block.z @ flat).reshape(len(block.z), self.n_folds, self.n_out)
            scores += bias
            value, second = self.loss.block(
                scores, self.labels[block.rows], self.weights[block.rows], curvature
            )
            pull = block.z.T @ scores.reshape(len(block.z), -1)  # (R, F * J)
            shift = scores.sum(axis=0, dtype=np.float64)
            if total is None:
                return [value, pull, shift, second]
            total[0] += value
            total[1] += pull
            total[2] += shift
            if curvature:
                total[3] += second
            return total

        sums = self.design.sums(work)
        value, pull, shift, second = next(sums)
        for part in sums:
            value += part[0]
            pull += part[1]
            shift += part[2]
            if curvature:
                second += part[3]
        return value, pull.reshape(weight.shape), shift, second

    def minimise(
        self,
        C: float,
        start: Solution,
        *,
        tolerance: float,
        most_passes: int = 200,
        tell: Callable[[], None] = lambda: None,
    ) -> Solution:
        """Minimise the objective at one C.

        Parameters
        ----------
        C : float
            Positive.
        start : Solution
            Where to begin: that of a neighbouring C.
        tolerance : float
            Estimated distance to the minimum, relative to the objective.
        most_passes : int
        tell : callable
            Called after each pass.
        """
        dtype = self.design.dtype
        value, pull, shift, second = self._pass(start.weight, start.bias, True)
        tell()
        if not np.isfinite(value).all():
            raise FloatingPointError("the loss of a linear head is not finite")
        assert second is not None
        # What is sure to be learnt from is never flat: a floor keeps the step of a class of which
        # all examples are right already, and of one whose examples are few.
        h = C * np.maximum(second, 1e-3 * second.max(axis=1, keepdims=True) + 1e-12)  # (F, J)
        inner = (1 / np.sqrt(1 + h * self._variance)).astype(dtype)  # (Q, F, J)
        outer = (1 / np.sqrt(1 + h * self._rest)).astype(dtype)  # (F, J)
        of_bias = (1 / np.sqrt(h)).astype(dtype)  # (F, J)

        def spread(x: Floats, a: Floats, b: Floats) -> Floats:
            """Scale by `a` along the basis and by `b` outside of it."""
            if self._vectors is None:
                return x * a
            along = (self._vectors.T @ x.reshape(len(x), -1)).reshape(a.shape)
            along *= a - b
            back = (self._vectors @ along.reshape(len(along), -1)).reshape(x.shape)
            back += x * b
            return back

        def gradient(weight: Floats, pull: Floats, shift: Floats) -> Floats:
            out = np.empty((len(weight) + 1, self.n_folds, self.n_out), dtype)
            out[:-1] = spread(weight + dtype.type(C) * pull, inner, outer)
            out[-1] = C * shift * of_bias
            return out

        def objective(weight: Floats, value: NDArray[np.float64]) -> NDArray[np.float64]:
            penalty = np.einsum("rfj,rfj->fj", weight, weight, dtype=np.float64) / 2
            return self._grouped(penalty + C * value)

        weight, bias = start.weight, start.bias
        x = np.empty((len(weight) + 1, self.n_folds, self.n_out), dtype)
        x[:-1] = spread(weight, 1 / inner, 1 / outer)
        x[-1] = bias / of_bias
        f, g = objective(weight, value), gradient(weight, pull, shift)  # (F, G), (R + 1, F, J)
        memory = max(3, min(MEMORY, MEMORY_BYTES // (2 * x.nbytes)))
        pairs: list[tuple[Floats, Floats, NDArray[np.float64]]] = []
        step = -g
        length = np.ones_like(f)
        slope = self._inner(g, step)
        passes, converged = 1, False
        while True:
            gap = -slope / 2 if not pairs else self._inner(g, g) / 2
            if gap.sum() <= tolerance * f.sum():
                converged = True
                break
            if passes >= most_passes or (length < SHORTEST).all():
                break
            tried = x + step * self._spread_groups(length)
            weight, bias = spread(tried[:-1], inner, outer), tried[-1] * of_bias
            value, pull, shift, _ = self._pass(weight, bias, False)
            passes += 1
            tell()
            f_new = objective(weight, value)
            # Rounding: near the minimum a step may not be seen to descend.
            good = f_new <= f + SUFFICIENT * length * slope + 4 * np.finfo(dtype).eps * f
            if not good.any():
                length = np.maximum(length * 0.3, SHORTEST / 2)
                continue
            moves = self._spread_groups(good.astype(dtype))
            g_new = gradient(weight, pull, shift)
            s, y = (tried - x) * moves, (g_new - g) * moves
            x, g = x + s, g + y
            f = np.where(good, f_new, f)
            sy = self._inner(s, y)
            inverse = np.divide(1, sy, out=np.zeros_like(sy), where=sy > 0)
            pairs.append((s, y, inverse))
            del pairs[:-memory]
            fresh = self._direction(g, pairs)
            step = np.where(moves > 0, fresh, step)
            length = np.where(good, 1.0, length * 0.3)
            slope = self._inner(g, step)
        weight, bias = spread(x[:-1], inner, outer), x[-1] * of_bias
        if self.loss.coupled and self.n_out > 1:  # scores have no level of their own
            weight = weight - weight.mean(axis=2, keepdims=True)
            bias = bias - bias.mean(axis=1, keepdims=True)
        return Solution(weight, bias, f.sum(axis=1), converged, passes)

    def _grouped(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum over what is one problem: (F, J) to (F, 1) or (F, J)."""
        return values.sum(axis=1, keepdims=True) if self.loss.coupled else values

    def _inner(self, a: Floats, b: Floats) -> NDArray[np.float64]:
        return self._grouped(np.einsum("rfj,rfj->fj", a, b).astype(np.float64))

    def _spread_groups(self, values: NDArray[Any]) -> Floats:
        return values[None].astype(self.design.dtype)  # (1, F, 1 or J)

    def _direction(
        self, g: Floats, pairs: list[tuple[Floats, Floats, NDArray[np.float64]]]
    ) -> Floats:
        """L-BFGS's two loops; a pair whose inverse is 0 is passed over."""
        q = -g
        factors = []
        for s, y, inverse in reversed(pairs):
            factor = inverse * self._inner(s, q)
            q -= y * self._spread_groups(factor)
            factors.append(factor)
        scale = np.ones_like(factors[0])
        for _, y, inverse in pairs:  # the last pair that a group has sets its scale
            yy = self._inner(y, y)
            fits = (inverse > 0) & (yy > 0)
            scale = np.where(fits, np.divide(1, inverse * yy, where=fits, out=scale.copy()), scale)
        q *= self._spread_groups(scale)
        for (s, y, inverse), factor in zip(pairs, reversed(factors), strict=True):
            q += s * self._spread_groups(factor - inverse * self._inner(y, q))
        return q
