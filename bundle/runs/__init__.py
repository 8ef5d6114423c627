"""The run directory: what is written during a run, and read back.

`run` writes it, `recorded_run` reads it as a whole, `finding` and `listing` find runs. Each file has one module that
writes and reads it: `record` (run.json), `prompts`, `predictions`, `results`; `files` knows their names. `scoring`
turns predictions into scores, `statistics` says how certain these are.
"""
