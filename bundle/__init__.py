"""Serve a checkpoint, evaluate it, leave nothing behind."""

__version__ = "0.1.0"
