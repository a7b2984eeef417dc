"""What perdure costs, against the least that the same work costs: ``python -m benchmarks``."""
