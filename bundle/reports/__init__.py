"""What people look at, made from a run directory alone.

`screen` is the terminal during a run, `html` the page, `comparison` two runs side by side, `board` all of them, `gates`
what scripts require, `formats` other tools' files.
"""
