"""What every run has, whatever is trained: folder, settings, checkpoints, metrics, progress, streams, device, guards.

Nothing here knows of environments, texts or images.
"""

from prefrl.runs.checkpoint import State as State
from prefrl.runs.folder import RunFolder as RunFolder
from prefrl.runs.guard import Interrupted as Interrupted
