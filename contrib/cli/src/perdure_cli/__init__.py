"""The ``perdure`` command: look into, import, export and check stores of agents' sessions."""

__version__ = "0.1.0"
