"""What is particular to the SQLite backend, and the contract."""
