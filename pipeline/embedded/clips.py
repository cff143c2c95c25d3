"""The records of `video`: short drawn clips with known shots and motion, and clips with a reason to be dropped."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from catalog.errors import UserError
from pipeline.embedded import objects, scenes
from pipeline.embedded.item import EXACT, EXPANDED, INTERLEAVED, End, Item, dropped, quarantined
from pipeline.embedded.picture import COLOURS, Origin, Picture, paint

Frame = NDArray[np.uint8]
FPS = 8
SIZE = (320, 240)
_ORIGIN = Origin(path="pipeline/embedded/clips.py")
_CODECS = {
    "libx264": {"crf": "20", "preset": "superfast", "x264-params": "mbtree=0"},
    # A fixed quality, in FFmpeg's units of 1/118.
    "mpeg4": {"flags": "+qscale", "global_quality": "472"},
}
_CONTAINERS = {"mp4": "mp4", "mkv": "matroska", "avi": "avi"}


def clips() -> Iterator[Item]:
    """All of them, in manifest order. Raises UserError without PyAV."""
    if find_spec("av") is None:
        raise UserError("the clips of the embedded corpus need PyAV: pip install 'unifactory[demo]'")
    yield from _sound()
    yield from _unfit()
    yield from _broken()


# -- frames -----------------------------------------------------------------------------------------------------------


def pan(picture: Picture, seconds: float, speed: float = 24.0, size: tuple[int, int] = SIZE) -> Iterator[Frame]:
    """A view of `size` (width, height) that moves over a wider picture to and fro at `speed` pixels a second."""
    wide = np.asarray(picture.image.convert("RGB"))
    room = wide.shape[1] - size[0]
    for number in range(round(seconds * FPS)):
        way = round(number * speed / FPS) % (2 * room)
        left = min(way, 2 * room - way)
        yield wide[: size[1], left : left + size[0]]


def zoom(picture: Picture, seconds: float, nearest: float = 0.5) -> Iterator[Frame]:
    """A view that draws nearer, until it shows the share `nearest` of the picture's width."""
    whole = np.asarray(picture.image.convert("RGB"))
    height, width = whole.shape[:2]
    count = round(seconds * FPS)
    for number in range(count):
        share = 1 - (1 - nearest) * number / (count - 1)
        scale = share * width / SIZE[0]
        place = np.array([[scale, 0, width * (1 - share) / 2], [0, scale, (height - SIZE[1] * scale) / 2]])
        yield cv2.warpAffine(whole, place, SIZE, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP).astype(np.uint8)


def balloons(picture: Picture, seconds: float, colours: Iterable[str]) -> Iterator[Frame]:
    """Balloons that rise over a picture, which stands still."""
    ground = np.asarray(picture.image.convert("RGB"), np.float32)
    height, width = ground.shape[:2]
    each = list(colours)
    turns = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    for number in range(round(seconds * FPS)):
        pixels = ground.copy()
        for place, colour in enumerate(each):
            x = width * (place + 0.5) / len(each) + 14 * np.sin(number / 6 + place)
            y = height * 1.1 - (number / FPS * 34 + place * 61) % (height * 1.3)
            paint(pixels, [(x + 30 * float(np.cos(turn)), y + 36 * float(np.sin(turn))) for turn in turns],
                  COLOURS[colour])  # fmt: skip
        yield np.clip(pixels, 0, 255).astype(np.uint8)


def held(frames: Iterable[Frame], times: int) -> Iterator[Frame]:
    """Every frame so many times."""
    return (frame for frame in frames for _ in range(times))


def faded(frames: Iterable[Frame], first: float, last: float) -> Iterator[Frame]:
    """Frames whose brightness goes from one share to another."""
    each = list(frames)
    for frame, share in zip(each, np.linspace(first, last, len(each)), strict=True):
        yield np.clip(frame * max(0.0, share), 0, 255).astype(np.uint8)


def clip_bytes(frames: Iterable[Frame], container: str = "mp4", codec: str = "libx264", apart: int = 48) -> bytes:
    """A clip of these frames; at most so many frames lie between whole pictures."""
    import av

    made = io.BytesIO()
    pictures = iter(frames)
    first = next(pictures)
    # Without random marks of the file, which Matroska has.
    with av.open(made, "w", format=container, options={"fflags": "bitexact"}) as file:
        stream: Any = file.add_stream(codec, rate=FPS)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.gop_size = apart
        # The number of threads shows in the bytes, and x264's macroblock tree does not give the same ones twice.
        stream.thread_count = 1
        stream.codec_context.time_base = Fraction(1, FPS)
        stream.options = _CODECS[codec]
        for number, picture in enumerate(itertools.chain([first], pictures)):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = number, stream.codec_context.time_base
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return made.getvalue()


# -- records ----------------------------------------------------------------------------------------------------------


def _landscape(name: str, time: int, width: int = 560) -> Picture:
    return scenes.landscape(name, (width, SIZE[1]), scenes.TIMES[time], 4, 2)


def _harbour(name: str, time: int, width: int = 560) -> Picture:
    return scenes.harbour(name, (width, SIZE[1]), scenes.TIMES[time], 3)


def _sound() -> Iterator[Item]:
    """Clips that give frames."""
    for index, seconds in enumerate((6, 11)):
        view = _landscape(f"panned_meadow_{index}", index)
        yield _clip(f"panned_meadow_{index}.mp4", view, "The view moves to the right.", pan(view, seconds))
    view = _harbour("panned_harbour", 2)
    data = clip_bytes(pan(view, 7, 32), "avi", "mpeg4")
    yield _item("panned_harbour.avi", data, EXPANDED, view, "The view moves to the right.")
    view = scenes.skyline("near_city", (640, 480), scenes.TIMES[3])
    yield _clip("near_city.mp4", view, "The view draws nearer.", zoom(view, 8))
    view = scenes.landscape("risen_balloons", SIZE, scenes.TIMES[0], 2, 1)
    yield _clip("risen_balloons.mp4", view, "Three balloons rise.", balloons(view, 12, ("red", "yellow", "blue")))
    one, two = _harbour("two_shots_a", 1), _landscape("two_shots_b", 4)
    both = itertools.chain(pan(one, 3), pan(two, 12))
    yield _clip("two_shots.mkv", two, "After three seconds the view changes.", both, cuts=(3.0,))


def _unfit() -> Iterator[Item]:
    """Clips that the recipe drops, by rule."""
    view = _harbour("unfit", 0)
    words = "The view moves to the right."
    yield _clip("short.mp4", view, words, pan(view, 2), dropped("duration"))
    tiny = objects.balls("tiny_clip", (200, 120), ("red", "blue"))
    yield _clip("tiny.mp4", tiny, words, pan(tiny, 6, size=(160, 120)), dropped("side"))
    banner = _landscape("banner_clip", 2, 900)
    yield _clip("banner.mp4", banner, words, pan(banner, 6, size=(640, 240)), dropped("aspect"))
    shots = [pan(_landscape(f"cut_{index}", index), 3) if index % 2 else pan(_harbour(f"cut_{index}", index), 3)
             for index in range(4)]  # fmt: skip
    yield _clip("hard_cuts.mp4", view, "Four views, three seconds each.", itertools.chain(*shots), dropped("shot"),
                cuts=(3.0, 6.0, 9.0))  # fmt: skip
    dark = itertools.chain(faded(pan(view, 4), 1.0, 0.0), held(faded(pan(view, 0.5), 0, 0), 10))
    yield _clip("dark.mp4", view, "Night falls.", dark, dropped("black"))
    yield _clip("still.mp4", view, "Nothing moves.", held(pan(view, 0.125), 7 * FPS), dropped("still"))
    view = _landscape("slides", 3)
    # Only whole pictures, so that equal ones stay equal.
    slides = clip_bytes(held(pan(view, 1.5, 90), 5), "avi", "mpeg4", apart=1)
    yield _item("slides.avi", slides, dropped("repeated"), view, "A new picture every five eighths of a second.")
    view = _harbour("soft", 4)
    soft = (cv2.GaussianBlur(frame, (0, 0), 5).astype(np.uint8) for frame in pan(view, 6))
    yield _clip("soft.mp4", view, "The view moves, out of focus.", soft, dropped("clarity"))
    view = _landscape("brightened", 1, SIZE[0])
    slow = faded(held(pan_still(view), 7 * FPS), 0.45, 1.0)
    yield _clip("brightened.mp4", view, "It grows light.", slow, dropped("motion"))
    for index, licence in enumerate(("CC-BY-NC-4.0", None)):
        view = _harbour(f"terms_clip_{index}", index)
        view = replace(view, origin=replace(_ORIGIN, licence=licence, note="stated for the test"))
        end = dropped("licence" if licence else "no licence")
        yield _clip(f"terms_{index}.mp4", view, words, pan(view, 5.5), end)


def pan_still(picture: Picture) -> Iterator[Frame]:
    """The picture itself, once."""
    yield np.asarray(picture.image.convert("RGB"))


def _broken() -> Iterator[Item]:
    """Copies, and files that do not play."""
    view = _landscape("panned_meadow_0", 0)
    data = clip_bytes(pan(view, 6))
    yield _item("panned_meadow_0_exact.mp4", data, EXACT, view, "The view moves to the right.",
                near_dup_group="panned_meadow_0", derived="the same bytes")  # fmt: skip
    view = _harbour("cut_clip", 3)
    data = clip_bytes(pan(view, 10), "matroska")
    end = quarantined("truncated clip")
    yield _item("cut_off.mkv", data[: len(data) // 2], end, view, "Half of a clip.", derived="second half cut off")
    data = clip_bytes(pan(view, 7), "avi", "mpeg4")
    yield _item("scratched.avi", _scratched(data), dropped("intact"), view, "A damaged clip.",
                derived="bytes overwritten in three places")  # fmt: skip
    yield _item("no_clip.mp4", b"this is no video\n" * 40, quarantined("not a video"), view, "No clip at all.")
    yield _item("nothing.mp4", b"", quarantined("empty file"), view, "An empty file.")


def _scratched(data: bytes) -> bytes:
    scratched = bytearray(data)
    for part in (0.35, 0.5, 0.65):
        start = round(len(data) * part)
        scratched[start : start + 300] = bytes(300)
    return bytes(scratched)


def _clip(
    file: str,
    view: Picture,
    what: str,
    frames: Iterable[Frame],
    end: End = EXPANDED,
    cuts: tuple[float, ...] = (),
    **more: Any,
) -> Item:
    data = clip_bytes(frames, _CONTAINERS[file.rpartition(".")[2]])
    return _item(file, data, end, view, what, cuts=cuts, **more)


def _item(
    file: str,
    data: bytes,
    end: End,
    view: Picture,
    what: str,
    cuts: tuple[float, ...] = (),
    **more: str,
) -> Item:
    facts: dict[str, Any] = {
        "purpose": ["interleaved"],
        "media": "video",
        "tags": [*view.tags, "drawn"],
        "caption": f"{view.caption} {what}",
        "caption_source": "written with the clip",
        **more,
        "detected_cuts_s": list(cuts),
        **_header(data),
    }
    return Item(file, data, {INTERLEAVED: end}, replace(_ORIGIN, licence=view.origin.licence), facts)


def _header(data: bytes) -> dict[str, Any]:
    """The field `video` of a manifest line; none for what does not open."""
    import av

    try:
        with av.open(io.BytesIO(data)) as file:
            stream = file.streams.video[0]
            facts = {
                "codec": stream.codec_context.name,
                "width": stream.width,
                "height": stream.height,
                "fps": float(stream.average_rate or 0),
                "pix_fmt": stream.pix_fmt,
                "container": file.format.name,
                "audio": bool(file.streams.audio),
            }
    except av.error.FFmpegError:
        return {}
    return {"video": facts}
