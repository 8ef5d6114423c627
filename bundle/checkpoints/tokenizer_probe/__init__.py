"""Loads a tokenizer as a server would, and reports whether it gives back what it is given.

This folder runs in the server's own interpreter, which need not be ours, nor of our version: only the standard library
and transformers are used, and nothing else of ``bundle``.
"""
