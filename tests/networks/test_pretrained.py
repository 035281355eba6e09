"""Features of colour images: the network's pass, its cache, and what happens without weights."""

import os
import urllib.error

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import ResNet34_Weights, resnet34

from reprolib.data.images import Images, sealed_labels
from reprolib.methods.autoencoder import as_inputs
from reprolib.networks import pretrained

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (7, 3, 20, 24), dtype=np.uint8)
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
HASH_RESNET34 = "b627a593"  # in the name of torchvision's file


class Tiny(nn.Module):
    """A convolution, a batch norm with statistics of its own, an average pool; counts its calls."""

    def __init__(self, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.conv = nn.Conv2d(3, 4, 8, stride=8)
        self.norm = nn.BatchNorm2d(4)
        for tensor in (*self.parameters(), self.norm.running_mean):
            tensor.data = torch.randn(tensor.shape, generator=generator) * 0.3
        self.norm.running_var.data = torch.rand(4, generator=generator) + 0.5
        self.calls = []

    def __deepcopy__(self, memo):
        clone = Tiny()
        clone.load_state_dict(self.state_dict())
        clone.train(self.training)
        clone.calls = self.calls
        return clone

    def forward(self, x):
        self.calls.append(len(x))
        return self.norm(self.conv(x)).relu().mean((2, 3))


class Pool(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No download, no weights and no cache but the test's own."""

    def refuse(url, *args, **kwargs):
        raise urllib.error.URLError("no network in the tests")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("REPROLIB_DATA", str(tmp_path / "data"))
    return tmp_path


def passed(pixels=PIXELS, network=None, precision="float32", **options):
    """The pass over images, with torchvision's preprocessing."""
    preprocess = ResNet34_Weights.IMAGENET1K_V1.transforms()
    network = Tiny() if network is None else network
    return pretrained.extract(network, pixels, preprocess, precision=precision, device=torch.device("cpu"), **options)


@pytest.fixture
def tiny(monkeypatch):
    """A small network in the place of the ResNets with their weights."""
    built = Tiny()
    monkeypatch.setattr(pretrained, "_pretrained", lambda network, entry: built)
    return built


# --- the values -----------------------------------------------------------------------------------


def test_a_constant_colour_is_normalised_as_for_imagenet():
    colours = RNG.integers(0, 256, (5, 3), dtype=np.uint8)
    pixels = np.broadcast_to(colours[:, :, None, None], (5, 3, 20, 31))
    found = passed(pixels, Pool())
    assert found.dtype == np.float32 and found.shape == (5, 3)
    np.testing.assert_allclose(found, (colours / 255 - MEAN) / STD, atol=1e-5)


def stretched(length, size):
    """Literal bilinear interpolation: weights float64 (size, length) of each new pixel's neighbours."""
    weights = np.zeros((size, length))
    for i in range(size):
        place = min(max((i + 0.5) * length / size - 0.5, 0), length - 1)
        low = int(place)
        weights[i, low] += 1 - (place - low)
        weights[i, min(low + 1, length - 1)] += place - low
    return weights


def test_the_shorter_side_becomes_256_and_the_middle_224_pixels_are_taken():
    pixels = RNG.integers(0, 256, (2, 3, 20, 25), dtype=np.uint8)
    large = stretched(20, 256) @ pixels.astype(np.float64) @ stretched(25, 320).T
    crop = large[:, :, 16:240, 48:272]
    expected = (crop / 255 - MEAN[:, None, None]) / STD[:, None, None]
    found = passed(pixels, nn.Flatten()).reshape(2, 3, 224, 224)
    # pixels are rounded to bytes after resizing, and the processor's weights have few digits
    np.testing.assert_allclose(found, expected, atol=1.5 / 255 / STD.min())
    assert np.abs(found - expected).mean() < 0.4 / 255 / STD.min()


def test_an_image_of_256_pixels_is_only_cropped():
    pixels = RNG.integers(0, 256, (2, 3, 256, 256), dtype=np.uint8)
    expected = pixels[:, :, 16:240, 16:240].astype(np.float64) / 255
    expected = (expected - MEAN[:, None, None]) / STD[:, None, None]
    found = passed(pixels, nn.Flatten())
    np.testing.assert_allclose(found, expected.reshape(2, -1), atol=1e-5)


def test_the_pass_agrees_with_float64_layer_by_layer():
    tiny = Tiny(seed=3)
    pixels = RNG.integers(0, 256, (3, 3, 256, 256), dtype=np.uint8)
    x = (pixels[:, :, 16:240, 16:240] / 255 - MEAN[:, None, None]) / STD[:, None, None]
    state = {k: v.double().numpy() for k, v in tiny.state_dict().items()}
    patches = x.reshape(3, 3, 28, 8, 28, 8)
    y = np.einsum("ncihjw,kchw->nkij", patches, state["conv.weight"])
    y += state["conv.bias"][:, None, None]
    scale = state["norm.weight"] / np.sqrt(state["norm.running_var"] + 1e-5)
    y = (y - state["norm.running_mean"][:, None, None]) * scale[:, None, None]
    expected = np.maximum(y + state["norm.bias"][:, None, None], 0).mean((2, 3))
    np.testing.assert_allclose(passed(pixels, tiny), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 64])
def test_the_size_of_the_blocks_changes_nothing(batch_size):
    tiny = Tiny().train()
    before = {k: v.clone() for k, v in tiny.state_dict().items()}
    found = passed(network=tiny, batch_size=batch_size)
    assert tiny.calls == [batch_size] * (7 // batch_size) + [7 % batch_size] * (7 % batch_size > 0)
    np.testing.assert_allclose(found, passed(), rtol=1e-5, atol=1e-6)
    # the module given is as it was: neither in eval mode nor with other statistics
    assert tiny.training
    assert all(torch.equal(before[k], v) for k, v in tiny.state_dict().items())


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (nn.Flatten(2), r"\(7, d\); it gave \(7, 3, 50176\)"),
        (nn.Sequential(Pool(), nn.Flatten(0)), r"it gave \(21,\)"),
        (nn.Sequential(Pool(), nn.Threshold(99, np.nan)), "image 0 are not finite"),
    ],
)
def test_what_is_no_features_is_refused(network, says):
    with pytest.raises(ValueError, match=says):
        passed(network=network)


def test_a_resnet34_gives_its_average_pool(tmp_path, capsys):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        whole = resnet34(weights=None).eval()
    path = tmp_path / "torch" / "hub" / "checkpoints" / f"resnet34-{HASH_RESNET34}.pth"
    path.parent.mkdir(parents=True)
    torch.save(whole.state_dict(), path)
    with pytest.raises(ValueError, match="resnet34-b627a593.pth has the wrong checksum"):
        pretrained.resnet_features(PIXELS[:3], "resnet34")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrained, "file_sha256", lambda path: HASH_RESNET34 + "0" * 56)
        found = pretrained.resnet_features(PIXELS[:3], "resnet34")
    assert found.shape == (3, 512) and found.dtype == np.float32
    assert "3/3" in capsys.readouterr().err  # the progress bar
    logits = passed(PIXELS[:3], whole)
    weight, bias = whole.fc.weight.detach().numpy(), whole.fc.bias.detach().numpy()
    np.testing.assert_allclose(logits, found @ weight.T + bias, rtol=1e-3, atol=1e-4)
    # once the features are there, the weights are not needed
    path.unlink()
    np.testing.assert_array_equal(pretrained.resnet_features(PIXELS[:3], "resnet34"), found)


def test_features_enter_the_fully_connected_autoencoder():
    assert as_inputs(passed()).shape == (7, 4)


# --- the cache ------------------------------------------------------------------------------------


def test_a_cache_hit_does_not_run_the_network(tmp_path, tiny):
    first = pretrained.resnet_features(PIXELS)
    assert tiny.calls == [7]
    names = sorted(path.name for path in (tmp_path / "data" / "cache").iterdir())
    assert len(names) == 2 and all(name.startswith("features-resnet152-") for name in names)
    # neither the name nor the labels of the images are of any influence, and labels may be sealed
    named = Images(PIXELS, np.arange(7), name="other")
    with sealed_labels():
        np.testing.assert_array_equal(pretrained.resnet_features(named), first)
    assert tiny.calls == [7]


def test_what_changes_the_features_changes_the_file(tmp_path, tiny):
    changed = PIXELS.copy()
    changed[0, 0, 0, 0] ^= 1
    tries = [(PIXELS, {}), (changed, {}), (PIXELS.reshape(7, 3, 24, 20), {})]
    tries += [(PIXELS, {"network": "resnet50"}), (PIXELS, {"precision": "bfloat16"})]
    for count, (pixels, options) in enumerate(tries, start=1):
        pretrained.resnet_features(pixels, **options)
        assert len(list((tmp_path / "data" / "cache").glob("*.npz"))) == count


def test_bfloat16_is_near_float32():
    exact, half = passed(), passed(precision="bfloat16")
    assert half.dtype == np.float32 and not np.array_equal(exact, half)
    np.testing.assert_allclose(half, exact, rtol=0.05, atol=0.02)


def test_a_damaged_file_is_told_and_made_anew_once_deleted(tmp_path, tiny):
    first = pretrained.resnet_features(PIXELS)
    (path,) = (tmp_path / "data" / "cache").glob("*.npz")
    flipped = bytearray(path.read_bytes())
    flipped[-1] ^= 1
    for content in (b"", flipped[:7], flipped[:-1], flipped):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="features-resnet152.*wrong checksum.*delete it"):
            pretrained.resnet_features(PIXELS)
    path.unlink()
    np.testing.assert_array_equal(pretrained.resnet_features(PIXELS), first)


def test_a_killed_pass_leaves_nothing(tmp_path, monkeypatch):
    class Stops(nn.Module):
        def forward(self, x):
            raise KeyboardInterrupt

    monkeypatch.setattr(pretrained, "_pretrained", lambda network, entry: Stops())
    with pytest.raises(KeyboardInterrupt):
        pretrained.resnet_features(PIXELS)
    assert os.listdir(tmp_path / "data" / "cache") == []


def test_a_folder_that_cannot_be_written_stops_before_the_pass(tmp_path, tiny):
    (tmp_path / "data" / "cache").mkdir(parents=True)
    (tmp_path / "data" / "cache").chmod(0o555)
    with pytest.raises(PermissionError, match="read-only.*REPROLIB_DATA"):
        pretrained.resnet_features(PIXELS)
    assert tiny.calls == []


# --- weights that are not there, and bad input ----------------------------------------------------


def test_missing_weights_say_what_to_do(tmp_path):
    with pytest.raises(ConnectionError, match="no network in the tests") as caught:
        pretrained.resnet_features(PIXELS)
    says = str(caught.value)
    assert str(tmp_path / "torch" / "hub" / "checkpoints" / "resnet152-") in says
    assert "/models/resnet152-" in says and "TORCH_HOME" in says


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"network": "resnet151"}, "unknown network 'resnet151'. Did you mean 'resnet1"),
        ({"network": 152}, "unknown network 152"),
        ({"precision": "float16"}, "unknown precision 'float16'"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"images": PIXELS[:, :1]}, "three channels.*clustered as they are"),
        ({"images": PIXELS.transpose(0, 2, 3, 1)}, "channels first"),
        ({"images": PIXELS[:0]}, "at least 1 images are needed"),
        ({"images": PIXELS.reshape(7, -1)}, "rows of flattened pixels"),
    ],
)
def test_bad_input_is_refused(tmp_path, options, says):
    with pytest.raises(ValueError, match=says):
        pretrained.resnet_features(**{"images": PIXELS} | options)
    assert not list(tmp_path.rglob("features-*"))


def test_pixels_that_are_not_bytes_are_refused():
    for pixels in (PIXELS / 255, PIXELS.astype(int)):
        with pytest.raises(TypeError, match="uint8"):
            pretrained.resnet_features(pixels)
