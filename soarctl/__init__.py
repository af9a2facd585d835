"""SOAR (Self-Optimization via Asymmetric RL, arXiv 2601.18778) as a command."""

__version__ = "0.1.0"
