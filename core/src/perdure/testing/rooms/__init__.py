"""The contract, promise by promise: one module for each of its subjects.

``perdure.testing.BackendContract`` is all of them together.
"""
