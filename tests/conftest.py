"""Fixtures that several test files share."""

import pytest
from made_records import NAMES, write_runs

from reprolib.experiments.paper import Paper


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder of records, to be read only."""
    root = tmp_path_factory.mktemp("runs")
    write_runs(root)
    return root


@pytest.fixture
def book(folder):
    """JULE's paper with the records of `folder` and names for their data sets."""
    paper = Paper("jule", root=folder)
    paper.names = NAMES
    return paper
