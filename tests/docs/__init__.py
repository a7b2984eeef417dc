"""The documentation is true: its examples run, its commands parse, its links lead somewhere."""
