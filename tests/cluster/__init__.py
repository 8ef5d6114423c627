"""Whole evaluations on a real Ray cluster: several raylets on this machine, each with a GPU that is stood in for."""
