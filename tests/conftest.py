"""Settings that hold for every test."""

from __future__ import annotations

import hypothesis
import torch

hypothesis.settings.register_profile(
    "prefrl", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("prefrl")
torch.set_num_threads(1)
