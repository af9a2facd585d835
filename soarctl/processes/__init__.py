"""Several processes that share a run: what they say to each other, and what becomes of a run when one of them dies."""
