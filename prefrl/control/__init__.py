"""Control: the loop of acting, asking and learning, its settings, its folder, and whole runs."""

from prefrl.control.folder import ControlFolder as ControlFolder
from prefrl.control.run import evaluate_run as evaluate_run
from prefrl.control.run import resume as resume
from prefrl.control.run import summarise as summarise
from prefrl.control.run import train as train
from prefrl.control.settings import QuerySettings as QuerySettings
from prefrl.control.settings import TrainSettings as TrainSettings
from prefrl.runs.guard import Interrupted as Interrupted
