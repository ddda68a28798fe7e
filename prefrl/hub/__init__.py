"""Runs on a hub: what is shared of them, with a card that says what it is, and those of others."""
