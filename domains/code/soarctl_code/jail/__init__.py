"""Runs untrusted Python and reports what happened. Inside the jail only the standard library is imported."""
