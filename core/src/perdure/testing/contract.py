"""The whole suite as one class."""

from perdure.testing.rooms.commits import Commits
from perdure.testing.rooms.concurrency import Concurrency
from perdure.testing.rooms.conditions import Conditions
from perdure.testing.rooms.deletion import Deletion
from perdure.testing.rooms.durability import DurabilityRoom
from perdure.testing.rooms.expiry import ExpiryRoom
from perdure.testing.rooms.idempotency import Idempotency
from perdure.testing.rooms.isolation import Isolation
from perdure.testing.rooms.listing import Listing
from perdure.testing.rooms.lost_replies import LostReplies
from perdure.testing.rooms.model import LikeTheModel
from perdure.testing.rooms.paging import Paging
from perdure.testing.rooms.races import Races
from perdure.testing.rooms.reads import Reads, Scans
from perdure.testing.rooms.restoring import Restoring
from perdure.testing.rooms.stages import Stages
from perdure.testing.rooms.waiting import Waiting


class BackendContract(
    Races,
    LikeTheModel,
    Concurrency,
    LostReplies,
    DurabilityRoom,
    Waiting,
    Isolation,
    Paging,
    Listing,
    Restoring,
    Stages,
    ExpiryRoom,
    Deletion,
    Idempotency,
    Conditions,
    Commits,
    Scans,
    Reads,
):
    """Everything that a backend promises. Subclass it and give it a ``harness`` fixture.

    pytest runs bases in reverse: simple promises first, so that the first failure says most.
    """
