"""The code domain: problems whose answers are programs, judged in a jail."""
