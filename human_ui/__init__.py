"""The place of the viewer in which a person compares clips: session state, key bindings and drawing.

Nothing is here yet; the viewer comes in a later release.
"""
