"""Least squares that neither odd rows nor a lack of evidence throw off: Levenberg-Marquardt, soft-L1 loss, priors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def robust_least_squares(
    residuals: Callable[[Array], tuple[Array, Array]], start: Array, steps: int = 60
) -> tuple[Array, Array]:
    """Levenberg-Marquardt on (data, prior) residuals, data under the soft-L1 loss: the optimum and its covariance."""

    def cost(z: Array) -> float:
        data, prior = residuals(z)
        return float(np.sum(2.0 * (np.sqrt(1.0 + data**2) - 1.0)) + np.sum(prior**2))

    z, damping, value = start.copy(), 1e-2, cost(start)
    normal = np.eye(len(z))
    for _ in range(steps):
        data, prior = residuals(z)
        root = (1.0 + data**2) ** -0.25  # square root of the loss's weight
        here = np.concatenate([data, prior])
        slope = np.empty((len(here), len(z)))
        for column in range(len(z)):
            moved = z.copy()
            moved[column] += 1e-5
            slope[:, column] = (np.concatenate(residuals(moved)) - here) / 1e-5
        scale = np.concatenate([root, np.ones(len(prior))])
        slope, here = slope * scale[:, None], here * scale
        normal = slope.T @ slope
        gradient = slope.T @ here
        while damping < 1e8:
            trial = z - np.linalg.solve(normal + damping * np.diag(np.diag(normal)), gradient)
            if (better := cost(trial)) < value:
                break
            damping *= 4.0
        else:
            break
        gain, z, value, damping = value - better, trial, better, damping / 6.0
        if gain < 1e-9 * value:
            break
    covariance: Array = np.asarray(np.linalg.inv(normal), dtype=np.float64)
    return z, covariance
