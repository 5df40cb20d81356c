"""The suites over conf groups run as the tests of ``objectives`` do."""

from tests.objectives.conftest import _one_thread, quick_collections, statistics

__all__ = ["_one_thread", "quick_collections", "statistics"]
