"""Text-to-image models from preferences: a prompt is the state, an image the action, its denoising the episode."""
