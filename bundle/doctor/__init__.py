"""What is well on this machine and what is not, before a run finds out. One module a topic."""
