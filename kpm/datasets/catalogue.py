"""What the registry knows of each dataset: files, hashes, where they are published, licence, whom to cite."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class File:
    """One file of a dataset, as it lies in the cache.

    Attributes
    ----------
    path : str
        Path below the dataset's folder, in the cache and in a mirror.
    size : int
        Bytes (of the first of `hashes`); 0 where upstream does not say.
    hashes : tuple of str
        ``"sha256:..."`` (or ``"md5:..."`` where upstream publishes no other); any of them is right, the first is
        upstream's.
    urls : tuple of str
        Where it is published, tried in turn.
    mirror : str
        Path below the mirror folder if it lies elsewhere than ``NAME/path``.
    """

    path: str
    size: int
    hashes: tuple[str, ...]
    urls: tuple[str, ...] = ()
    mirror: str = ""


@dataclasses.dataclass(frozen=True)
class Archive:
    """A tar, zip or gz file that holds files of a dataset.

    Attributes
    ----------
    members : tuple of str
        Paths of the files it holds; empty for all of the dataset's. Nothing else is taken out of it.
    prefix : str
        Folder inside the archive the paths are relative to, with its slash.
    hashes : tuple of str
        Hash of the archive; empty where none is published, for each member is checked against its own in any case.
    mirror, urls
        As for `File`.
    """

    mirror: str = ""
    urls: tuple[str, ...] = ()
    hashes: tuple[str, ...] = ()
    prefix: str = ""
    members: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Entry:
    """A dataset in the registry; `stand_in` names the dataset drawn by our own code that can take its place."""

    name: str
    title: str
    licence: str
    homepage: str
    citation: str
    files: tuple[File, ...]
    archives: tuple[Archive, ...] = ()
    stand_in: str = ""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(f.size for f in self.files)


def _table(text: str, *bases: str) -> tuple[File, ...]:
    """Files from lines ``hash size path``, each published below every one of `bases`."""
    rows = (line.split() for line in text.strip().splitlines())
    return tuple(File(path, int(size), (hash_,), tuple(base + path for base in bases)) for hash_, size, path in rows)


_SPRITES = "https://raw.githubusercontent.com/YingzhenLi/Sprites/3ce4048c5227802bd8f1888e293fd3afdba91c0c/"
_YINYANG = (
    "https://raw.githubusercontent.com/lkriener/yin_yang_data_set/e6eef9617b1dbd30d1f01508d462275747ae45b1/"
    "publication_data/"
)
_DSPRITES = "https://github.com/google-deepmind/dsprites-dataset/raw/fa310c66517cfc1939d77fe17c725154efc97127/"
_DSPRITES_NAME = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64"
_DSPRITES_CITATION = "Matthey, Higgins, Hassabis, Lerchner: dSprites, disentanglement testing Sprites dataset, 2017"

_SHEETS = """
sha256:27d1ac78db37c42f35a20d15c42705efc5e58d47c236cc01423879d4f797f151 33734 body/0.png
sha256:1535e9228357b884df80f777a0d1dac10ac35e550e4d8d077105ccad014a1460 32036 body/1.png
sha256:7c241033b4897501cb3721b6c3a9ebfa94b13db10a539edbd9bcc3e0c2a4bcb9 33247 body/2.png
sha256:055f5aa33fc112d8444b42fce2cf50608a9fbbf2466c54ceaa46c777589a717a 33232 body/3.png
sha256:57f3b9c510482379aba9a32fc0de7d48e9cbe3dc40f2447283547f773b77ca72 33226 body/4.png
sha256:91e49453aeab5ebbb4fd2b48253812895dcfb4cb1829b84e24425c66de8f04ff 31114 body/5.png
sha256:4ec356c488e272fde2d2d0d722b12a80217871e41161d43ba784caf243969ec2 7581 bottomwear/0.png
sha256:0674312eaa4ab548f8bb31ef95d7dbd46b41555758cec51bd6c3e9fac9a0f936 8304 bottomwear/1.png
sha256:3b464feb0d20ff34b0ca2a6d1fd00766ad86e2229c3d56ff91379fe27588a893 7585 bottomwear/2.png
sha256:b366e84ea0519d06cf693f51e0ee2f9ac32b3132d27c75dfdc4b6f52fca072de 8227 bottomwear/3.png
sha256:4ed7e7702e4f50b9692c0043be04b7296a108d85ea97230fb50d13c150d98771 8322 bottomwear/4.png
sha256:a5c5e7e33f13fe5ad37b5836a5a74fb0d2094a0877c2146961b88688ff85840d 5375 bottomwear/5.png
sha256:b917edcf2b3c35d51ef57a6fad67557c5edf048785bea29db09a640d09ac9a90 15643 topwear/0.png
sha256:e33c6cb31ed1268a2c0dc73b665b1c9b9420e22baf3321880222bdb22682368b 15643 topwear/1.png
sha256:2b9b8fefa08894b7ea536cd62b86d494aefe6e54495c5c1d83460827b13b6448 15643 topwear/2.png
sha256:807f5b628592f6747e2814be9435963069dba6c360577168c02f57bbe903433d 10561 topwear/3.png
sha256:b51b17878503877e179ce4f9231713bf2b2d2d666c3ec9ee29f4e784469867a2 10940 topwear/4.png
sha256:1b6049d43f83ebfda857cc405d1936ac9fd80be480fa6ad239024a6a75ad0372 25293 topwear/5.png
sha256:e4007b0635a239ad16cdebfe90759349ccc73dfc6836c9d19625714be185f43d 8049 hair/0.png
sha256:fa6369f84d3310705df6d8ca8c9d515a7d211e73d2826c50a9cb5bb285652c66 8751 hair/1.png
sha256:1b8046752be7233e829ebe9b11048e171d8d181ee6f68e07042b34f57bb8af0d 8360 hair/2.png
sha256:333783285c5fd94ff434ae5000d2da39aac7940269f173119eaa70d34c8acfa1 8337 hair/3.png
sha256:24df8e9b291cbd444f6c4d12d35b3d43d909cd13f04e6401e0fd8ab10216d5a2 7363 hair/4.png
sha256:4dd471cc20e0b1cf71adcaab01c88598767e5cfe680adacdf560ca91574f17ae 8236 hair/5.png
sha256:d56a561616a20a12030d2d40a52eeec63e6d048871bf3b6994221869362151f1 5504 shoes/1.png
"""

_MNIST = """
sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609 9912422 train-images-idx3-ubyte.gz
sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c 28881 train-labels-idx1-ubyte.gz
sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6 1648877 t10k-images-idx3-ubyte.gz
sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6 4542 t10k-labels-idx1-ubyte.gz
"""

_YINYANG_DRAW = """
sha256:88ce43d8e7620b4dcd0712a582882325e609183eb71f2368cce8e87930e122d5 160128 train_samples.npy
sha256:d38863599b41c3d67d5e606b21c3ea10f7956758471e946adcb120c4e5ae31c9 40128 train_labels.npy
sha256:88f7e23daf578da390fe3ca10370d38fdb6060a08249ecb1be832e3e6cce75d3 32128 validation_samples.npy
sha256:abd956deb8e62f528a271d323c7498e6d331cd261f143b539b1219d274936008 8128 validation_labels.npy
sha256:1559e64b45a5e28df8a9d1158d891383d5745b0af2edbbca31ca4e2faeb95b4c 32128 test_samples.npy
sha256:b4337aa983ea3928d1d8ee78268e8e266ede6ca3a401ade7b02eb47c9d90be93 8128 test_labels.npy
"""

_DSPRITES_FRAMES = """
sha256:a1c137b217f674353d28a9c0204b113b3c61c8f63dcd3543bb7205f73a36bc91 7685 dsprites_real_frames_sample.npz
sha256:0d6d485ee4b531c8686f425a805b9a5b8ec63bcb9ab2a64624625b6f1003bc1b 2337 heart_outline.csv
"""

_ENTRIES = (
    Entry(
        name="sprites",
        title="Sprites: animated characters from Liberated Pixel Cup sheets",
        licence="CC BY-SA 3.0 or GPL 3.0",
        homepage="https://github.com/YingzhenLi/Sprites",
        citation="Li, Mandt: Disentangled Sequential Autoencoder, ICML 2018; art: Liberated Pixel Cup",
        files=_table(_SHEETS, _SPRITES),
        archives=(
            Archive(
                mirror="sprites/sprites-lpc.tar.gz",
                hashes=("sha256:0f5309c23b15b29c92ce710a4256e673d3907c9281acc4241b45adf60f42312d",),
                prefix="Sprites/",
            ),
        ),
        stand_in="puppets",
    ),
    Entry(
        name="mnist",
        stand_in="drawn_digits",
        title="MNIST: handwritten digits",
        licence="CC BY-SA 3.0",
        homepage="http://yann.lecun.com/exdb/mnist/",
        citation="LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition, 1998",
        files=_table(
            _MNIST,
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
    ),
    Entry(
        name="cifar10",
        stand_in="tinted_digits",
        title="CIFAR-10: photographs in ten classes (binary version)",
        licence="none stated",
        homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
        citation="Krizhevsky: Learning multiple layers of features from tiny images, 2009",
        files=(
            File(
                "cifar-10-binary.tar.gz",
                170052171,
                ("sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",),
                urls=("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
            ),
        ),
    ),
    Entry(
        name="ecg5000",
        stand_in="beats",
        title="ECG5000: heartbeats of 140 samples, 5 classes",
        licence="none stated",
        homepage="https://www.timeseriesclassification.com/description.php?Dataset=ECG5000",
        citation="Chen et al.: UCR time series classification archive, 2015; Goldberger et al.: PhysioNet, 2000",
        files=(
            File(
                "ECG5000_TRAIN.txt",
                1128500,
                ("sha256:0d96aff193311a6dc6111bf0dbd2f7d2313987fbf7a1da4a383d92563876057b",),
            ),
            File(
                "ECG5000_TEST.txt",
                10156500,
                ("sha256:baf4ad57d28daa5e79050edd4185968181762bc83d45a757753015b4ba8ab295",),
            ),
        ),
        archives=(
            Archive(
                mirror="ecg5000/ECG5000_TRAIN.txt.gz",
                hashes=("sha256:d6e1c595b46427a99edbfce425d78e02ed7d82203dc4bca8d4a8c2eaa34d8100",),
                members=("ECG5000_TRAIN.txt",),
            ),
            Archive(
                mirror="ecg5000/ECG5000_TEST.txt.gz",
                hashes=("sha256:34478294c139649026f298738520c8c408aa3b1023b4a32a5823bea81d043df3",),
                members=("ECG5000_TEST.txt",),
            ),
            # Nobody publishes a hash of the zip file; the two members have theirs.
            Archive(
                mirror="ecg5000/ECG5000.zip",
                urls=(
                    "https://www.timeseriesclassification.com/aeon-toolkit/ECG5000.zip",
                    "https://www.timeseriesclassification.com/Downloads/ECG5000.zip",
                ),
            ),
        ),
    ),
    Entry(
        name="imdb",
        stand_in="reviews_synthetic",
        title="IMDb: 50000 film reviews with their sentiment",
        licence="none stated",
        homepage="https://ai.stanford.edu/~amaas/data/sentiment/",
        citation="Maas et al.: Learning word vectors for sentiment analysis, ACL 2011",
        files=(
            # Second hash: the same archive without the unlabelled reviews and bag-of-words files.
            File(
                "aclImdb_v1.tar.gz",
                84125825,
                (
                    "sha256:c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
                    "sha256:c07d175bcfffa79bc186e46d783ccadb2365bd292df35ecf814f46bd62be884d",
                ),
                urls=("https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",),
                mirror="imdb/aclImdb_v1_no_unsup.tar.gz",
            ),
        ),
    ),
    Entry(
        name="yinyang",
        stand_in="yinyang_drawn",
        title="Yin-Yang: points of a plane in three classes, the published draw",
        licence="MIT",
        homepage="https://github.com/lkriener/yin_yang_data_set",
        citation="Kriener, Goeltz, Petrovici: The Yin-Yang dataset, NICE 2022",
        files=_table(_YINYANG_DRAW, _YINYANG),
        archives=(
            Archive(
                mirror="yinyang/yin_yang_publication_data.tar.gz",
                hashes=("sha256:3455fe2f687f5daa489153eb0160b0a0f5e9a117304c8480df809174af51b9bf",),
                prefix="yin_yang/publication_data/",
            ),
        ),
    ),
    Entry(
        name="dsprites",
        stand_in="dsprites_rerender",
        title="dSprites: 737280 images of 2-D shapes (npz)",
        licence="Apache-2.0",
        homepage="https://github.com/google-deepmind/dsprites-dataset",
        citation=_DSPRITES_CITATION,
        # Neither a sha256 nor the size of the npz is published; numpy reads it, the hdf5 form needs h5py.
        files=(
            File(
                f"{_DSPRITES_NAME}.npz",
                0,
                ("md5:7da33b31b13a06f4b04a70402ce90c2e",),
                urls=(f"{_DSPRITES}{_DSPRITES_NAME}.npz",),
            ),
        ),
    ),
    Entry(
        name="dsprites-hdf5",
        stand_in="dsprites_rerender",
        title="dSprites: the same images (hdf5)",
        licence="Apache-2.0",
        homepage="https://github.com/google-deepmind/dsprites-dataset",
        citation=_DSPRITES_CITATION,
        files=(
            File(
                f"{_DSPRITES_NAME}.hdf5",
                28024106,
                ("sha256:729fa22e884c9c500e1f17415d580746b4c5894fbbb780a1319bbcfa39a745bb",),
                urls=(f"{_DSPRITES}{_DSPRITES_NAME}.hdf5",),
                mirror=f"dsprites/{_DSPRITES_NAME}.hdf5",
            ),
        ),
    ),
    Entry(
        name="dsprites-frames",
        title="dSprites: 148 genuine frames and the outline of the heart",
        licence="Apache-2.0",
        homepage="https://github.com/google-deepmind/dsprites-dataset",
        citation=_DSPRITES_CITATION,
        files=tuple(dataclasses.replace(f, mirror=f"dsprites/{f.path}") for f in _table(_DSPRITES_FRAMES)),
    ),
    Entry(
        name="shapes3d",
        stand_in="shapes3d_rerender",
        title="3D Shapes: 480000 rendered images, six factors",
        licence="Apache-2.0 (the repository's)",
        homepage="https://github.com/google-deepmind/3d-shapes",
        citation="Burgess, Kim: 3D Shapes dataset, 2018",
        files=(
            File(
                "3dshapes.h5",
                267573662,
                ("sha256:0a0f6ed98baff276a50f3a081a7434d788da63cb135a98189b2a5b5769be1785",),
                urls=("https://storage.googleapis.com/3d-shapes/3dshapes.h5",),
            ),
        ),
    ),
)

ENTRIES = {entry.name: entry for entry in _ENTRIES}
