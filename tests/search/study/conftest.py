"""Shared by the tests of running studies: a server of PostgreSQL."""

from tests.search.study.postgresql import postgresql as postgresql
