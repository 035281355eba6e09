"""What an epoch of the pretraining chosen by labels would buy: the same training, watched."""

import numpy as np
import pytest

from reprolib.bench import checkpoint_choice
from reprolib.bench import run as bench
from reprolib.experiments import run
from reprolib.metrics import accuracy

SMOKE = {"dataset": "digits", "profile": "smoke"}


def test_looking_at_every_epoch_changes_none(capsys):
    found = bench.run(["checkpoints"], quick=True)["checkpoints"]
    assert found["profile"] == "smoke" and "best epoch" in capsys.readouterr().out
    found = found["acc"]["digits"][0]
    plan = run.plan("dcss", SMOKE | {"method": "AEKMeans"})
    images, model = plan.images(), plan.estimator()
    model.phase2_epochs = 0
    assert len(found) == model.pretrain_epochs > 1
    last = accuracy(images.labels, model.fit(plan.inputs(images)).labels_)
    assert found[-1] == pytest.approx(last)
    model.pretrain_epochs = 2
    second = accuracy(images.labels, model.fit(plan.inputs(images)).labels_)
    assert found[1] == pytest.approx(second)


def test_the_table_tells_the_last_epoch_from_the_best():
    found = {
        "profile": "cpu",
        "acc": {"digits": [[0.5, 0.9, 0.7], [0.5, 0.6, 0.7]], "usps": [[0.4]]},
    }
    table = checkpoint_choice.table(found, {"digits": "small digits"})
    rows = [[str(x).replace("\u00a0", " ") for x in row] for row in table.rows]
    assert rows == [
        ["small digits", "0.700 ± 0.000", "0.800 ± 0.141", "+0.100 ± 0.141", "2, 3 of 3"],
        ["usps", "0.400", "0.400", "+0.000", "1 of 1"],
    ]


def test_the_figure_marks_the_best_epoch():
    found = {"acc": {"digits": [[0.5, 0.9, 0.7]], "usps": [[0.4, 0.3]]}}
    panels = checkpoint_choice.figure(found, {"usps": "USPS"}).axes
    assert [axes.get_title() for axes in panels] == ["digits", "USPS"]
    line, ring = panels[0].lines
    np.testing.assert_allclose(line.get_ydata(), [0.5, 0.9, 0.7])
    assert ring.get_xdata().tolist() == [2] and ring.get_ydata().tolist() == [0.9]
