"""Serves any perdure store over HTTP: see :mod:`perdure_server.app`."""

__version__ = "0.1.0"
