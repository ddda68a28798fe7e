"""The viewer in which a person compares clips.

`session` is what happens, `window` and `drawing` show it, `desk` brings questions from the record and takes replies
there. Nothing here imports torch or a simulator.
"""
