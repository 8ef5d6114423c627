"""What is asked: benchmarks, data sources, prompts, answer rules, and the tasks that combine them.

Most callers need `catalog.find_task`, `task.Task` and `scores`; `benchmarks`, `sources` and `answers` each have a
narrow face of their own. Nothing is imported here, because starting a server needs only parts of it.
"""
