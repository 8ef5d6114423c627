"""``bundle doctor``: what will stop a run on this machine, before one finds out."""
