"""Thumbnails stored with the book, so that its pages show images where the data sets are not at hand.

`python -m tools.thumbs` writes a sheet of 8-bit PNG a data set, and `manifest.json`, which says what each holds. No
more than a quarter of a set is kept: the book shows data, it does not hand them on. Faces (orl) are not kept.
"""

import hashlib
import io
import json
from functools import partial
from typing import BinaryIO

import numpy as np

from reprolib.data.load import load
from reprolib.files import write_atomically
from reprolib.report.pictures import THUMBS, sheet

SHARE = 4  # no more than one image in so many
MAP, SHEETS = 2000, 500  # images for a map, and where pages have sheets of clusters alone
# How the records load each data set; images, at most; under what terms its makers give it
SETS = {
    "mnist-test": ({}, MAP, "CC BY-SA 3.0; Y. LeCun and C. Cortes, from data of NIST"),
    "fashion-mnist": ({"subset": 5000}, SHEETS, "MIT; Zalando SE"),
    "usps": ({}, MAP, "no licence is told; made by CEDAR for the US Postal Service, passed on freely for research"),
    "coil20": ({}, SHEETS, "for research; S. Nene, S. Nayar and H. Murase, Columbia University"),
}


def main() -> None:
    """Write every sheet and the manifest; FileNotFoundError where a data set is not at hand."""
    THUMBS.mkdir(exist_ok=True)
    entries = []
    for name, (options, most, terms) in SETS.items():
        images = load(name, **options)
        whole = load(name).n
        n = min(most, whole // SHARE)
        pixels = images.pixels[np.arange(n) * images.n // n, 0]
        stream = io.BytesIO()
        sheet(pixels).save(stream, "PNG", optimize=True)
        packed = stream.getvalue()
        write_atomically(THUMBS / f"{name}.png", partial(_put, packed))
        about = {"dataset": name, "images": n, "of": images.n, "whole": whole, "shape": list(pixels.shape[1:])}
        about["terms"] = terms
        digests = {"data_sha256": images.sha256, "file_sha256": hashlib.sha256(packed).hexdigest()}
        entries.append(about | digests)
        print(f"{name}: {n:,} of {images.n:,} images, {len(packed):,} bytes")
    write_atomically(THUMBS / "manifest.json", partial(_put, f"{json.dumps(entries, indent=1)}\n".encode()))


def _put(content: bytes, stream: BinaryIO) -> None:
    stream.write(content)


if __name__ == "__main__":
    main()
