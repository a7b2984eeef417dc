"""Connections that break at the worst moment, and tasks cancelled at every await."""
