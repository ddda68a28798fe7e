"""Clips looked at again: states saved while an agent acts, frames rendered from them, and their compressed form.

`saver` marks each step of an environment, `trail` keeps the marks with the history, `worlds` turns them into frames,
`codec` into a few hundred kilobytes. Nothing here imports a simulator until one is at work.
"""
