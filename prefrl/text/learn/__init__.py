"""Trainers of language models: fine-tuning, reward models, PPO, direct preference optimisation."""
