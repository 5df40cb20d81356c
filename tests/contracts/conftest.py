"""The suites over conf groups run as the tests of ``objectives`` do."""

from tests.objectives.conftest import pytest_runtest_setup, statistics

__all__ = ["pytest_runtest_setup", "statistics"]
