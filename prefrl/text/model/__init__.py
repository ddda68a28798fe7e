"""Language models: tokens, sequences, weights, generation."""
