"""What holds for all tests."""

from hypothesis import settings

# Machines that run tests are noisy: how long one example takes says nothing.
settings.register_profile("perdure", deadline=None)
settings.load_profile("perdure")
