"""Reinforcement learning from preferences: teach an agent by saying which of two clips is better.

Start at `prefrl.wrappers` (a learned reward in your own Gymnasium project), `prefrl.control` (train an agent from
comparisons) or the command `prefrl`.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("prefrl")
except PackageNotFoundError:  # an uninstalled checkout
    __version__ = "0+unknown"
