"""Fixtures that several test files share."""

import pytest
from made_records import write_runs


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder of records, to be read only."""
    root = tmp_path_factory.mktemp("runs")
    write_runs(root)
    return root
