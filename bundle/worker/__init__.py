"""A program that serves a checkpoint beside itself and asks it what it is handed: ``python -m bundle.worker``."""
