"""Language models as agents: fine-tuning, reward models, PPO, direct preference optimisation, generation, reports."""
