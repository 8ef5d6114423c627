"""Asks the questions of a run: in which order, how many at a time, what follows when it dies, what is answered."""

from bundle.evaluation._asking import AskingOptions
from bundle.evaluation._evaluation import Evaluation

__all__ = ["AskingOptions", "Evaluation"]
