"""What all text trainers share."""

from prefrl.runs.trainer import SECONDS_BETWEEN_LOOKS, Epochs, Metrics, micro_batches
from prefrl.runs.trainer import ModelTrainer as TextTrainer

__all__ = ["SECONDS_BETWEEN_LOOKS", "Epochs", "Metrics", "TextTrainer", "micro_batches"]
