"""Training: the loop, the run folder, checkpoints, evaluation."""

from prefrl.training.folder import RunFolder as RunFolder
from prefrl.training.guard import Interrupted as Interrupted
from prefrl.training.run import evaluate_run as evaluate_run
from prefrl.training.run import report as report
from prefrl.training.run import resume as resume
from prefrl.training.run import summarise as summarise
from prefrl.training.run import train as train
from prefrl.training.settings import QuerySettings as QuerySettings
from prefrl.training.settings import TrainSettings as TrainSettings
