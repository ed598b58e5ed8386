"""The contract: each promise a test, each test on every backend.

Import everything from here into a test module; see `polyvec.testing.plugin` for the fixtures. No test names
a database: what an engine may lack is a capability, and then its refusal is tested.
"""

from polyvec.testing.contract.changes import TestUpdateAndDelete
from polyvec.testing.contract.collections import TestCollections
from polyvec.testing.contract.matrix import TestFilterMatrix
from polyvec.testing.contract.namespaces import TestNamespaces
from polyvec.testing.contract.queries import TestQueries
from polyvec.testing.contract.random_programs import TestPrograms
from polyvec.testing.contract.reads import TestReads
from polyvec.testing.contract.writes import TestRoundTrip, TestWrites

__all__ = [  # noqa: RUF022  # the order in which they run: what fails first tells most
    "TestCollections",
    "TestRoundTrip",
    "TestWrites",
    "TestReads",
    "TestQueries",
    "TestUpdateAndDelete",
    "TestNamespaces",
    "TestFilterMatrix",
    "TestPrograms",
]
