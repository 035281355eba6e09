"""A fitted JULE as a representation of other images, and runs that start from it."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from reprolib.data import load
from reprolib.experiments import records, run
from reprolib.methods import JULE
from reprolib.methods.jule import LAYERS


@pytest.fixture(scope="module")
def model():
    images = load.load("digits", subset=200, size=20)
    return JULE(10, n_epochs=1, channels=6, embedding_dim=12).fit(images)


def literal(model, pixels):
    """Every layer, one image and one operation at a time, in float64."""
    network = model.network_.double().eval()
    layers = []
    for image in torch.from_numpy(pixels).double() / 255:
        maps, x = [], image[None]
        for convolution, norm, block in zip(network.convolutions, network.norms, network.blocks, strict=True):
            x = convolution(x)
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            x = (x - norm.running_mean[:, None, None]) * scale[:, None, None]
            x = F.relu(x + norm.bias[:, None, None])
            x = F.max_pool2d(x, 2, ceil_mode=True) if block.pooled else x
            maps.append(x.flatten())
        layers.append([network.inner_product(maps[-1]), *maps[::-1]])
    network.float()
    return [torch.stack(parts).detach().numpy() for parts in zip(*layers, strict=True)]


def test_every_layer_is_the_literal_one(model):
    images = load.load("digits", subset=7, size=20)
    for layer, expected in zip(LAYERS, literal(model, images.pixels), strict=False):
        found = model.represent(images, layer)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_inner_product_layer_is_the_embedding_before_normalisation(model):
    images = load.load("digits", subset=9, size=20)
    unit = F.normalize(torch.from_numpy(model.represent(images)))
    np.testing.assert_allclose(unit.numpy(), model.transform(images), atol=1e-6)


def test_bad_requests(model):
    images = load.load("digits", subset=9, size=20)
    with pytest.raises(ValueError, match="Did you mean 'top-1'"):
        model.represent(images, "top1")
    with pytest.raises(ValueError, match=r"load them with size=\(20, 20\)"):
        model.represent(load.load("digits", subset=9))
    shallow = JULE(2, n_epochs=1, channels=4, n_neighbors=5).fit(load.load("digits", subset=60))
    with pytest.raises(ValueError, match="needs 2 convolution blocks"):
        shallow.represent(load.load("digits", subset=9), "top-2")


def test_a_run_starts_from_the_model_of_another(tmp_path):
    asked = dict(dataset="digits", profile="smoke", runs_dir=str(tmp_path))
    learned = asked | dict(method="KMeans", features="jule/digits/ip")
    with pytest.raises(FileNotFoundError, match="run jule -p dataset=digits -p profile=smoke"):
        run.run("jule", learned, [0], runs_dir=tmp_path)
    run.run("jule", asked, [0], runs_dir=tmp_path)
    (path,) = run.run("jule", learned, [0], runs_dir=tmp_path)
    entry = records.read(path)
    assert entry["tag"] == "on-digits-ip" and entry["parameters"]["features"] == "jule/digits/ip"
    assert set(entry["behaviours"]) == {"KMeans", "represent", "JULE/paper"}
    plan = run.plan("jule", learned)
    features = plan.inputs(plan.images())
    expected = plan.estimator().fit(features).labels_
    assert np.array_equal(records.load_arrays(entry)["labels"], expected)


def test_plans_with_a_representation():
    asked = dict(dataset="usps", profile="cpu", method="ACGDL")
    plan = run.plan("jule", asked | {"features": "jule/mnist-test/top-1"})
    assert plan.tag == "on-mnist-test-top-1" and plan.takes_seed
    with pytest.raises(FileNotFoundError, match="JULE-mnist-test-cpu-main-seed0.safetensors"):
        plan.images()
    assert not run.plan("jule", asked).takes_seed
    for features in ("jule/mnist-test/top", "jule/mnits/ip", "jule/ip", "julia/usps/ip"):
        with pytest.raises(ValueError, match=r"layer|data set|unknown features"):
            run.plan("jule", asked | {"features": features})
    learned = {"features": "jule/usps/ip"}
    with pytest.raises(ValueError, match="JULE needs images"):
        run.plan("jule", asked | learned | {"method": "JULE"})
    with pytest.raises(ValueError, match="n_neighbors: not the setting.*'on-usps-ip'"):
        run.plan("jule", asked | learned | {"n_neighbors": 7})
