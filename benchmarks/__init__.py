"""Benchmarks; each module names its claim and its command."""
