"""The bench of paper 000's steps: every stage is timed, and the table says what was measured."""

import pytest

from reprolib.bench import rounds
from reprolib.bench import run as bench


def test_every_stage_is_timed_and_counted():
    found = bench.run(["rounds"], True)["rounds"]
    (rows,) = found["steps"].values()
    assert list(rows) == ["pretext", "scan", "self-labelling"]
    for row in rows.values():
        assert row["views"] == 512 and row["float32"] > 0 and row["bfloat16"] > 0
    # a view goes forwards and backwards; self-labelling looks at each image once more
    assert rows["self-labelling"]["flops"] == pytest.approx(4 / 3 * rows["scan"]["flops"], rel=0.05)


def test_the_table_holds_views_a_second_and_shares_of_the_floor():
    row = {"views": 512, "float32": 0.5, "bfloat16": 0.25, "flops": 1e10}
    found = {"rates": {"float32": 4e10, "bfloat16": 8e10}, "steps": {"ResNet-18": {"scan": row}}}
    assert rounds.table(found, "ResNet-18").rows == [["scan", "512", "1,024", "0.50", "2,048", "0.50"]]
