"""The countdown game, judged by a process of its own."""
