"""What perdure costs, against the least that the same work can cost. ``python -m benchmarks``."""
