"""Trainer plug-ins and what they are made of. Torch and transformers are imported here and nowhere else."""
