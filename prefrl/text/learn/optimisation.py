"""Adam with warm-up, decay and clipping."""

from prefrl.runs.optimisation import Optimiser, OptimiserSettings

__all__ = ["Optimiser", "OptimiserSettings"]
