"""The processes of a run: how many, how they start, how they act together, and the signals that stop them."""
