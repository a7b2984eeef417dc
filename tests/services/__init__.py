"""Starts the real servers that tests and benchmarks run against. Nothing here needs pytest."""
