"""Which data sets there are: where each lies, where it comes from, and who reads it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pcsim.errors import ConfigurationError, DataError, nearest
from pcsim.kernels.cache import cache_folder
from pcsim.places import at_home, from_here
from pcsim.training.dataset import Dataset, Shape
from pcsim.training.datasets.cifar10 import read_cifar10
from pcsim.training.datasets.mnist import read_fashion_mnist, read_mnist
from pcsim.training.datasets.svhn import read_svhn
from pcsim.training.datasets.tiny_imagenet import read_tiny_imagenet

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")


@dataclass(frozen=True)
class Source:
    """A file that can be downloaded.

    Attributes:
        address: of the file; its last part is the file's name.
        size: in bytes.
        md5: checksum, in hexadecimal digits.
    """

    address: str
    size: int
    md5: str

    @property
    def file(self) -> str:
        """Name of the file."""
        return self.address.rpartition("/")[2]


@dataclass(frozen=True)
class KnownSet:
    """A data set that lies in files of its own.

    Attributes:
        name: in model files.
        title: what it shows.
        home: page that describes it.
        samples: official numbers of training and test samples.
        shape: (channels, height, width) of a sample.
        classes: number of classes.
        read: reads it from its folder.
        sources: its files.
        package_folder: where a system package puts it, if there is one.
        package: that package.
    """

    name: str
    title: str
    home: str
    samples: tuple[int, int]
    shape: Shape
    classes: int
    read: Callable[[Path], Dataset]
    sources: tuple[Source, ...]
    package_folder: Path | None = None
    package: str = ""

    @property
    def remedy(self) -> str:
        """How to get it."""
        package = f"apt-get install {self.package}, " if self.package else ""
        return f"{package}pcsim data fetch {self.name}, or --set data.path=FOLDER"

    def places(self, path: str | os.PathLike[str] | None, root: Path) -> list[Path]:
        """Where to look: only at the path, if there is one; else in root/NAME, then in the package's."""
        if path is not None:
            return [at_home(path)]
        return [root / self.name, *([self.package_folder] if self.package_folder else [])]

    def find(self, path: str | os.PathLike[str] | None, root: Path) -> Path | None:
        """The first of its places that exists, or None."""
        return next((place for place in self.places(path, root) if _exists(place)), None)

    def load(self, path: str | os.PathLike[str] | None, root: Path) -> Dataset:
        """Find it and read it.

        Raises:
            DataError: files missing or damaged, and how to get them.
        """
        place = self.locate(path, root)
        try:
            return self.read(place)
        except DataError as error:
            raise DataError(f"{self.name}: {error}; {self.remedy}") from None

    def locate(self, path: str | os.PathLike[str] | None, root: Path) -> Path:
        """The first of its places that exists.

        Raises:
            DataError: none does, and how to get the set.
        """
        place = self.find(path, root)
        if place is None:
            places = " or ".join(from_here(one)[:300] for one in self.places(path, root))
            raise DataError(f"{self.name}: no folder {places}: {self.remedy}")
        return place


def _exists(place: Path) -> bool:
    try:
        return place.exists()
    except OSError:  # a folder on the way that may not be entered, or a name that is too long
        return False


def _idx_sources(base: str, files: tuple[tuple[str, int, str], ...]) -> tuple[Source, ...]:
    return tuple(Source(f"{base}/{name}-ubyte.gz", size, md5) for name, size, md5 in files)


# Checksums: Fashion-MNIST's README, CIFAR-10's page; the others as torchvision and Avalanche verify them.
KNOWN: Mapping[str, KnownSet] = {
    one.name: one
    for one in (
        KnownSet(
            name="fashion-mnist",
            title="clothes, grey 28x28",
            home="https://github.com/zalandoresearch/fashion-mnist",
            samples=(60_000, 10_000),
            shape=(1, 28, 28),
            classes=10,
            read=read_fashion_mnist,
            sources=_idx_sources(
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
                (
                    ("train-images-idx3", 26_421_880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
                    ("train-labels-idx1", 29_515, "25c81989df183df01b3e8a0aad5dffbe"),
                    ("t10k-images-idx3", 4_422_102, "bef4ecab320f06d8554ea6380940ec79"),
                    ("t10k-labels-idx1", 5_148, "bb300cfdad3c16e7a12a480ee83cd310"),
                ),
            ),
            package_folder=DEBIAN_FOLDER,
            package="dataset-fashion-mnist",
        ),
        KnownSet(
            name="mnist",
            title="handwritten digits, grey 28x28",
            home="http://yann.lecun.com/exdb/mnist/",
            samples=(60_000, 10_000),
            shape=(1, 28, 28),
            classes=10,
            read=read_mnist,
            # The home page no longer serves the files; this is the mirror that torchvision keeps of them.
            sources=_idx_sources(
                "https://ossci-datasets.s3.amazonaws.com/mnist",
                (
                    ("train-images-idx3", 9_912_422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
                    ("train-labels-idx1", 28_881, "d53e105ee54ea40749a09fcbcd1e9432"),
                    ("t10k-images-idx3", 1_648_877, "9fb629c4189551a2d022fa330f9573f3"),
                    ("t10k-labels-idx1", 4_542, "ec29112dd5afa0611ce80d1b7f02629c"),
                ),
            ),
        ),
        KnownSet(
            name="cifar-10",
            title="animals and vehicles, colour 32x32",
            home="https://www.cs.toronto.edu/~kriz/cifar.html",
            samples=(50_000, 10_000),
            shape=(3, 32, 32),
            classes=10,
            read=read_cifar10,
            sources=(
                Source(
                    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
                    170_498_071,
                    "c58f30108f718f92721af3b95e74349a",
                ),
            ),
        ),
        KnownSet(
            name="svhn",
            title="house numbers, cropped digits, colour 32x32",
            home="http://ufldl.stanford.edu/housenumbers/",
            samples=(73_257, 26_032),
            shape=(3, 32, 32),
            classes=10,
            read=read_svhn,
            sources=(
                Source(
                    "http://ufldl.stanford.edu/housenumbers/train_32x32.mat",
                    182_040_794,
                    "e26dedcc434d2e4c54c9b2d4a06d8373",
                ),
                Source(
                    "http://ufldl.stanford.edu/housenumbers/test_32x32.mat",
                    64_275_384,
                    "eb5a983be6a315427106f1b164d9cef3",
                ),
            ),
        ),
        KnownSet(
            name="tiny-imagenet",
            title="objects, colour 64x64; tested on the validation images",
            home="http://cs231n.stanford.edu/",
            samples=(100_000, 10_000),
            shape=(3, 64, 64),
            classes=200,
            read=read_tiny_imagenet,
            sources=(
                Source(
                    "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
                    248_100_043,
                    "90528d7ca1a48142e341f4ef8d21d0de",
                ),
            ),
        ),
    )
}
NAMES = ("digits", *KNOWN, "npz")


def known_set(name: str) -> KnownSet:
    """The data set of this name.

    Raises:
        ConfigurationError: there is none, or it has no files of its own.
    """
    if name not in KNOWN:
        hint = "it needs no files" if name == "digits" else nearest(name, KNOWN)
        raise ConfigurationError(f"data set '{name}': expected one that lies in files of its own; {hint}")
    return KNOWN[name]


def data_root(directory: str | os.PathLike[str] | None = None) -> Path:
    """The folder with a folder for each set: the given one, else $PCSIM_DATA, else ~/.cache/pcsim/data."""
    given = directory or os.environ.get("PCSIM_DATA")
    if given:
        return at_home(given)
    try:
        return Path.home() / ".cache" / "pcsim" / "data"
    except RuntimeError:  # this user has none
        return cache_folder() / "data"
