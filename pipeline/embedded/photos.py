"""Photographs that scikit-image ships in its wheel, whole and in parts, with captions written for them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from catalog.errors import UserError
from pipeline.embedded.picture import Origin, Picture

_CC0 = "CC-0 as skimage.data says"
_PUBLIC = "public domain as skimage.data says"


@dataclass(frozen=True)
class Photo:
    """A shipped picture. `parts` are boxes (left, top, right, bottom) of it that are pictures of their own."""

    file: str
    caption: str
    tags: tuple[str, ...]
    licence: str = "CC0-1.0"
    note: str = _CC0
    parts: tuple[tuple[tuple[int, int, int, int], str], ...] = ()


PHOTOS = (
    Photo(
        "astronaut.png",
        "A smiling astronaut in an orange space suit sits in front of a flag and a model of a space shuttle.",
        ("photo", "person"),
        "CC-PDM-1.0",
        _PUBLIC,
        (((256, 230, 512, 512), "A black and white space helmet held on the lap of someone in an orange suit."),),
    ),
    Photo("brick.png", "A wall of long bricks, in grey.", ("photo", "grey", "texture")),
    Photo(
        "camera.png", "A man in a dark coat looks through a camera on a tripod on a lawn.", ("photo", "grey", "person")
    ),
    Photo(
        "chelsea.png",
        "Close-up of the face of a ginger tabby cat.",
        ("photo", "animal"),
    ),
    Photo(
        "coffee.png",
        "A cup of espresso on a red saucer with a spoon, on a wooden table.",
        ("photo", "food"),
        parts=(((0, 140, 260, 400), "The rim of a red saucer on a table of dark wood."),),
    ),
    Photo(
        "coins.png",
        "Four rows of ancient coins on a dark ground.",
        ("photo", "grey", "object"),
        "CC-PDM-1.0",
        "no known copyright restrictions, as skimage.data says",
    ),
    Photo("grass.png", "Blades of grass and dry leaves from above, in grey.", ("photo", "grey", "texture")),
    Photo("gravel.png", "Gravel from above, in grey.", ("photo", "grey", "texture")),
    Photo(
        "hubble_deep_field.jpg",
        "Hundreds of distant galaxies and a few stars before a black sky.",
        ("photo", "space"),
        "CC-PDM-1.0",
        _PUBLIC,
        (
            ((20, 30, 532, 542), "Small coloured galaxies scattered over a dark sky."),
            ((470, 340, 982, 852), "A field of far galaxies with a bright orange one among them."),
        ),
    ),
    Photo(
        "ihc.png",
        "Stained tissue under a microscope, brown gland walls and blue cell nuclei.",
        ("photo", "microscope"),
        "CC-PDM-1.0",
        "no known copyright restrictions, as skimage.data says",
    ),
    Photo(
        "motorcycle_left.png",
        "A red motorcycle parked in a garage in front of shelves and boxes.",
        ("photo", "vehicle"),
        parts=(
            ((30, 200, 330, 480), "The rear wheel of a red motorcycle on a concrete floor."),
            ((390, 20, 741, 300), "The headlamp and handlebar of a red motorcycle in front of shelves with boxes."),
        ),
    ),
    Photo(
        "retina.jpg",
        "The back of an eye: red retina with blood vessels, a pale disc on the left, a dark spot in the middle.",
        ("photo", "medical"),
        parts=(((110, 260, 690, 840), "The pale optic disc of an eye from which blood vessels spread."),),
    ),
    Photo(
        "rocket.jpg",
        "A white rocket on its launch pad at dusk, lit by floodlights, between lattice towers.",
        ("photo", "space"),
        "CC-PDM-1.0",
        _PUBLIC,
        (((210, 100, 470, 427), "A white rocket stands lit on its launch pad, a lattice tower behind it."),),
    ),
)

EXTRA = (
    Photo("logo.png", "A round green and orange emblem with a snake that curls into an S.", ("illustration", "alpha"),
          "BSD-3-Clause", "logo of scikit-image"),
    Photo("horse.png", "The black silhouette of a standing horse.", ("illustration", "alpha")),
    Photo("color.png", "A colour wheel: all hues around a white centre.", ("illustration",), "BSD-3-Clause",
          "made by skimage"),
    Photo("moon.png", "Craters on the grey surface of the moon.", ("photo", "grey", "space"), "CC-PDM-1.0", _PUBLIC),
    Photo("cell.png", "A bright round cell in a dark field under a microscope.", ("photo", "grey", "microscope")),
    Photo("clock_motion.png", "A wall clock, blurred by motion.", ("photo", "grey", "blurred"), "CC-PDM-1.0", _PUBLIC),
    Photo("microaneurysms.png", "Thin blood vessels with small dark spots, in grey.", ("photo", "grey", "medical")),
)  # fmt: skip
"""Shipped pictures that the generation recipe has a reason to drop."""


def shipped(file: str) -> bytes:
    """A file of the scikit-image wheel; raises UserError when the package or the file is not there."""
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise UserError("the embedded corpus needs pictures that scikit-image ships: pip install 'unifactory[demo]'")
    path = Path(spec.origin).parent / "data" / file
    if not path.is_file():
        raise UserError(
            f"scikit-image {version('scikit-image')} ships no {file}: pip install 'scikit-image>=0.25,<0.27'"
        )
    return path.read_bytes()


def stored(picture: Picture) -> bytes | None:
    """The bytes as shipped, for a whole picture that is a JPEG already."""
    file = Path(picture.origin.path).name
    return shipped(file) if Path(file).suffix == ".jpg" and Path(file).stem == picture.name else None


def photographs(photos: tuple[Photo, ...] = PHOTOS) -> Iterator[Picture]:
    """Every picture, then its parts."""
    for photo in photos:
        with Image.open(io.BytesIO(shipped(photo.file))) as image:
            image.load()
        stem = Path(photo.file).stem
        origin = Origin("scikit-image/scikit-image", f"skimage/data/{photo.file}", photo.licence, photo.note)
        yield Picture(stem, image, photo.caption, photo.tags, origin=origin)
        for number, (box, caption) in enumerate(photo.parts):
            yield Picture(f"{stem}_part{number}", image.crop(box), caption, (*photo.tags, "part"), origin=origin)
