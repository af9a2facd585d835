"""The letters domain: a three-letter word, a list of operations, and a model small enough to ship."""
