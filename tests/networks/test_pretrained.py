"""Features of colour images: the network's pass, its cache, and what happens without weights."""

import os
import urllib.error

import numpy as np
import pytest
import torch
from torch import nn

from reprolib.data.images import Images, sealed_labels
from reprolib.methods.autoencoder import as_inputs
from reprolib.networks import pretrained as rf

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


def features(images=PIXELS, network=None, **options):
    network = Tiny() if network is None else network
    return rf.resnet_features(images, network, **{"verbose": False} | options)


# --- the values -----------------------------------------------------------------------------------


def test_a_constant_colour_is_normalised_as_for_imagenet():
    colours = RNG.integers(0, 256, (5, 3), dtype=np.uint8)
    pixels = np.broadcast_to(colours[:, :, None, None], (5, 3, 20, 31))
    found = features(pixels, Pool())
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
    found = features(pixels, nn.Flatten()).reshape(2, 3, 224, 224)
    # pixels are rounded to bytes after resizing, and the processor's weights have few digits
    np.testing.assert_allclose(found, expected, atol=1.5 / 255 / STD.min())
    assert np.abs(found - expected).mean() < 0.4 / 255 / STD.min()


def test_an_image_of_256_pixels_is_only_cropped():
    pixels = RNG.integers(0, 256, (2, 3, 256, 256), dtype=np.uint8)
    expected = pixels[:, :, 16:240, 16:240].astype(np.float64) / 255
    expected = (expected - MEAN[:, None, None]) / STD[:, None, None]
    found = features(pixels, nn.Flatten())
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
    np.testing.assert_allclose(features(pixels, tiny), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 64])
def test_the_size_of_the_blocks_changes_nothing(batch_size, tmp_path):
    tiny = Tiny().train()
    before = {k: v.clone() for k, v in tiny.state_dict().items()}
    found = features(network=tiny, batch_size=batch_size)
    assert tiny.calls == [batch_size] * (7 // batch_size) + [7 % batch_size] * (7 % batch_size > 0)
    expected = features(network=Tiny(), cache=tmp_path / "other")
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    # the module given is as it was: neither in eval mode nor with other statistics
    assert tiny.training
    assert all(torch.equal(before[k], v) for k, v in tiny.state_dict().items())


def test_bfloat16_is_near_float32_and_kept_apart():
    exact, half = features(), features(precision="bfloat16")
    assert half.dtype == np.float32 and not np.array_equal(exact, half)
    np.testing.assert_allclose(half, exact, rtol=0.05, atol=0.02)


def test_a_random_resnet34_gives_its_average_pool(tmp_path, capsys):
    from torchvision.models import resnet34

    found = rf.resnet_features(PIXELS[:3], "resnet34", weights=None, batch_size=2)
    assert found.shape == (3, 512) and found.dtype == np.float32
    assert "3/3" in capsys.readouterr().err  # the progress bar
    with torch.random.fork_rng():
        torch.manual_seed(rf.SEED)
        whole = resnet34(weights=None).eval()
    # the same network with its classifier: known weights, from where torch keeps them
    path = tmp_path / "torch" / "hub" / "checkpoints" / f"resnet34-{HASH_RESNET34}.pth"
    path.parent.mkdir(parents=True)
    torch.save(whole.state_dict(), path)
    with pytest.raises(ValueError, match="resnet34-b627a593.pth has the wrong checksum"):
        features(PIXELS[:3], "resnet34")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rf, "file_sha256", lambda path: HASH_RESNET34 + "0" * 56)
        named = features(PIXELS[:3], "resnet34")
    np.testing.assert_allclose(named, found, rtol=1e-5, atol=1e-6)
    logits = features(PIXELS[:3], whole)
    weight, bias = whole.fc.weight.detach().numpy(), whole.fc.bias.detach().numpy()
    np.testing.assert_allclose(logits, found @ weight.T + bias, rtol=1e-3, atol=1e-4)
    # once the features are there, the weights are not needed
    path.unlink()
    np.testing.assert_array_equal(features(PIXELS[:3], "resnet34"), named)


def test_features_enter_the_fully_connected_autoencoder():
    assert as_inputs(features()).shape == (7, 4)


# --- the cache ------------------------------------------------------------------------------------


def test_a_cache_hit_does_not_run_the_network(tmp_path):
    tiny = Tiny()
    first = features(network=tiny, batch_size=4)
    assert tiny.calls == [4, 3]
    (path,) = (tmp_path / "data" / "cache").iterdir()
    assert path.name.startswith("features-Tiny-") and path.suffix == ".safetensors"
    np.testing.assert_array_equal(features(network=tiny, batch_size=2), first)
    # neither the name nor the labels of the images are of any influence, and labels may be sealed
    named = Images(PIXELS, np.arange(7), name="other")
    with sealed_labels():
        np.testing.assert_array_equal(features(named, tiny), first)
    assert tiny.calls == [4, 3] and list(path.parent.iterdir()) == [path]


def test_what_changes_the_features_changes_the_file(tmp_path):
    folder = tmp_path / "mine"
    changed = PIXELS.copy()
    changed[0, 0, 0, 0] ^= 1
    other = Tiny()
    with torch.no_grad():
        other.norm.running_mean[0] += 1e-3
    for count, (pixels, network, options) in enumerate(
        [
            (PIXELS, Tiny(), {}),
            (changed, Tiny(), {}),
            (PIXELS.reshape(7, 3, 24, 20), Tiny(), {}),
            (PIXELS, other, {}),
            (PIXELS, nn.Sequential(Pool()), {}),
            (PIXELS, nn.Sequential(Pool(), nn.ReLU()), {}),
            (PIXELS, Tiny(), {"precision": "bfloat16"}),
        ],
        start=1,
    ):
        features(pixels, network, cache=folder, **options)
        assert len(list(folder.iterdir())) == count
    assert not (tmp_path / "data").exists()


def test_a_damaged_file_is_told_and_made_anew_once_deleted(tmp_path):
    first = features(cache=tmp_path)
    (path,) = tmp_path.glob("features-*")
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-1] ^= 1
    for content in (b"", whole[:7], whole[: len(whole) // 2], whole[:-1], bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"features-Tiny.* is damaged.*Delete it"):
            features(cache=tmp_path)
    path.unlink()
    np.testing.assert_array_equal(features(cache=tmp_path), first)
    assert path.read_bytes() == whole


def test_features_of_other_images_under_this_name_are_refused(tmp_path):
    features(cache=tmp_path / "a")
    features(PIXELS[::-1], cache=tmp_path / "b")
    (here,), (other,) = (tmp_path / "a").iterdir(), (tmp_path / "b").iterdir()
    here.write_bytes(other.read_bytes())
    with pytest.raises(ValueError, match="not what was written"):
        features(cache=tmp_path / "a")


def test_a_killed_pass_leaves_nothing(tmp_path):
    class Stops(Tiny):
        def __deepcopy__(self, memo):
            return self

        def forward(self, x):
            if self.calls:
                raise KeyboardInterrupt
            return super().forward(x)

    with pytest.raises(KeyboardInterrupt):
        features(network=Stops(), batch_size=4, cache=tmp_path / "mine")
    assert os.listdir(tmp_path / "mine") == []


def test_a_folder_that_cannot_be_written_stops_before_the_pass(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full").chmod(0o555)
    tiny = Tiny()
    with pytest.raises(PermissionError, match="read-only.*cache='FOLDER'"):
        features(network=tiny, cache=tmp_path / "full")
    assert tiny.calls == []


# --- weights that are not there, and bad input ----------------------------------------------------


@pytest.mark.parametrize("weights", ["IMAGENET1K_V1", "IMAGENET1K_V2"])
def test_missing_weights_say_what_to_do(tmp_path, weights):
    with pytest.raises(ConnectionError, match="no network in the tests") as caught:
        features(network="resnet152", weights=weights)
    says = str(caught.value)
    assert str(tmp_path / "torch" / "hub" / "checkpoints" / "resnet152-") in says
    assert "/models/resnet152-" in says and "TORCH_HOME" in says


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"network": "resnet151"}, "unknown network 'resnet151'. Did you mean 'resnet1"),
        ({"network": 152}, "unknown network 152"),
        ({"network": "resnet34", "weights": "IMAGENET1K_V2"}, "Did you mean 'IMAGENET1K_V1'"),
        ({"precision": "float16"}, "unknown precision 'float16'"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"images": PIXELS[:, :1]}, "three channels.*clustered as they are"),
        ({"images": PIXELS.transpose(0, 2, 3, 1)}, "channels first"),
        ({"images": PIXELS[:0]}, "at least 1 images are needed"),
        ({"images": PIXELS.reshape(7, -1)}, "Rows of flattened pixels"),
        ({"network": nn.Flatten(2)}, r"\(7, d\); it gave \(7, 3, 50176\)"),
        ({"network": nn.Sequential(Pool(), nn.Flatten(0))}, r"it gave \(21,\)"),
        ({"network": nn.Sequential(Pool(), nn.Threshold(99, np.nan))}, "image 0 are not finite"),
    ],
)
def test_bad_input_is_refused(tmp_path, options, says):
    with pytest.raises(ValueError, match=says):
        features(**options)
    assert not list(tmp_path.rglob("features-*"))


def test_pixels_that_are_not_bytes_are_refused():
    for pixels in (PIXELS / 255, PIXELS.astype(int)):
        with pytest.raises(TypeError, match="uint8"):
            features(pixels)
