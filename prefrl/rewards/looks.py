"""How different two segments look, by what is seen in them."""

from __future__ import annotations

import numpy as np

from prefrl.rewards.ensemble import RewardEnsemble
from prefrl.segments import Segment


def look_difference(ensemble: RewardEnsemble, first: Segment, second: Segment) -> float:
    """Return how different the observations of two segments of k steps are, on average over steps and dimensions.

    Step is held against step: the same gait half a stride later counts as different. Actions, which a picture does not
    show, count for nothing.

    Args:
        ensemble: whose input statistics tell how much each dimension varies.
        first: a segment.
        second: another, as long.

    Returns:
        The mean absolute difference, at least 0: of vectors in standard deviations of each dimension over what the
        agent did (each at most 20, since inputs are clipped), of images in [0, 1].
    """
    if ensemble.images:
        one, other = (np.asarray(segment.observations)[:-1].astype(np.float32) for segment in (first, second))
        return float(np.abs(one - other).mean()) / 255.0
    of_state = slice(0, ensemble.num_state_inputs)
    both = [ensemble.features(*segment.transitions()).vector for segment in (first, second)]
    assert both[0] is not None and both[1] is not None
    return float((both[0] - both[1])[:, of_state].abs().mean())
