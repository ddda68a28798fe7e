"""Behaviours that no reward of the environments describes, each as a judge of clips.

    prefrl train HalfCheetah-v5 --labels 600 --reward-function scripts/examples/behaviours.py:front_leg
    prefrl train Hopper-v5 --labels 600 --reward-function scripts/examples/behaviours.py:hop_backwards

docs/teaching.md says the same in words, for a person at the keyboard.
"""

import numpy as np

from prefrl.segments import Segment


def front_leg(segment: Segment) -> np.ndarray:
    """Half-cheetah: stand on the front leg, the tail up in the air, and stay there."""
    state = segment.observations[1:]
    pitch, speed, turning = state[:, 1], state[:, 8], state[:, 10]  # radians, nose down is positive; m/s; rad/s
    return np.cos(pitch - 1.2) - 0.1 * np.abs(speed) - 0.05 * np.abs(turning)


def hop_backwards(segment: Segment) -> np.ndarray:
    """Hopper: jump backwards, upright; a fall is the worst."""
    state = segment.observations[1:]
    height, lean, speed = state[:, 0], state[:, 1], state[:, 5]
    standing = (height > 0.8) & (np.abs(lean) < 0.2)
    return np.where(standing, 1.0 + np.clip(-speed, -1.0, 3.0), -1.0)
