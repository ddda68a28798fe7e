"""Reward models: networks, the ensemble, and how it is fitted to comparisons."""

from prefrl.rewards.data import ComparisonData as ComparisonData
from prefrl.rewards.ensemble import RewardEnsemble as RewardEnsemble
from prefrl.rewards.fit import FitReport as FitReport
from prefrl.rewards.fit import FitSettings as FitSettings
from prefrl.rewards.fit import Fitter as Fitter
from prefrl.rewards.fit import check_dynamics as check_dynamics
from prefrl.rewards.function import RewardFunction as RewardFunction
from prefrl.rewards.looks import look_difference as look_difference
from prefrl.rewards.registry import NETWORKS as NETWORKS
from prefrl.rewards.registry import NetworkInputs as NetworkInputs
from prefrl.rewards.settings import RewardSettings as RewardSettings
