"""The ``perdure`` command: look into, fill, copy and check stores of agents' sessions."""

__version__ = "0.1.0"
