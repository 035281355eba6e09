"""What an epoch of the pretraining chosen by labels would buy: the same training, watched."""

import numpy as np

from reprolib.data.load import load
from reprolib.methods import AEKMeans
from reprolib.studies.checkpoint_choice import AEKMeansByEpoch

SMALL = {"pretrain_epochs": 3, "batch_size": 50, "device": "cpu"}


def test_looking_at_every_epoch_changes_none(tmp_path):
    digits, told = load("digits", size=16, subset=100), {}

    def fit(method=AEKMeansByEpoch, epochs=3, monitor=None):
        model = method(**SMALL | {"pretrain_epochs": epochs})
        return model.fit(digits, monitor=monitor, shared=tmp_path)

    watched = fit(monitor=lambda report: told.setdefault(report.period, report))
    assert list(told) == [-2, -1, 0] and {r.stage for r in told.values()} == {"pretrain"}
    np.testing.assert_array_equal(told[0].labels, watched.results_["ae"])
    # what it leaves others take over, but it does not, since it would have nothing to tell
    taken = fit(AEKMeans)
    assert taken.history_ == watched.history_
    again = []
    fit(monitor=again.append)
    assert len(again) == len(told) + 1  # and the end
    alone = AEKMeans(**SMALL).fit(digits)
    np.testing.assert_array_equal(alone.results_["ae"], watched.results_["ae"])
    np.testing.assert_array_equal(fit(AEKMeans, epochs=2).results_["ae"], told[-1].labels)
