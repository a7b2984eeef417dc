"""Every backend keeps the contract: the whole kit, on all of them, in one run."""

import pytest

from perdure.testing import BackendContract, Harness

BACKENDS = ("memory", "sqlite", "redis", "postgres", "dynamodb", "durable_objects")


class TestBackend(BackendContract):
    """``-k sqlite`` runs it on one."""

    @pytest.fixture(params=BACKENDS)
    def harness(self, request: pytest.FixtureRequest) -> Harness:
        return request.getfixturevalue(f"{request.param}_harness")
