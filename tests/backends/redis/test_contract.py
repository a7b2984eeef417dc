"""The Redis backend keeps the contract on a cluster, too."""

from collections.abc import Iterator

import pytest

from perdure.testing import BackendContract

from tests.backends.redis.harness import RedisHarness
from tests.services.cluster import Cluster


class TestCluster(BackendContract):
    @pytest.fixture
    def harness(self, valkey_cluster: Cluster) -> Iterator[RedisHarness]:
        harness = RedisHarness(valkey_cluster.url, cluster=True)
        yield harness
        harness.raw.close()
