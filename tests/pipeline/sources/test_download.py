from __future__ import annotations

import httpx
import pytest

from pipeline.sources.download import opt_out

HEADERS = [
    (["noai"], "X-Robots-Tag: noai"),
    (["NoImageAI"], "X-Robots-Tag: noimageai"),
    (["nofollow, noindex"], "X-Robots-Tag: noindex"),
    (["noimageindex"], "X-Robots-Tag: noimageindex"),
    (["none"], "X-Robots-Tag: none"),
    (["all", "noai"], "X-Robots-Tag: noai"),
    (["unifactory: noai"], "X-Robots-Tag: noai"),
    (["Unifactory: nofollow, noindex"], "X-Robots-Tag: noindex"),
    (["*: noai"], "X-Robots-Tag: noai"),
    (["otherbot: noai"], None),
    (["otherbot: nofollow, noindex"], None),
    (["otherbot: noai, unifactory: noindex"], "X-Robots-Tag: noindex"),
    (["max-image-preview: none"], None),
    (["max-image-preview: none, noai"], "X-Robots-Tag: noai"),
    (["unavailable_after: 25 Jun 2030 15:00:00 PST, noai"], "X-Robots-Tag: noai"),
    (["nofollow, nosnippet"], None),
    ([""], None),
    ([], None),
]


@pytest.mark.parametrize(("values", "said"), HEADERS)
def test_robots_tags_are_heard_when_they_are_meant_for_us(values: list[str], said: str | None) -> None:
    headers = httpx.Headers([("X-Robots-Tag", value) for value in values])
    assert opt_out(headers, "unifactory/0.1") == said


@pytest.mark.parametrize(("value", "said"), [("1", "tdm-reservation: 1"), (" 1 ", "tdm-reservation: 1"), ("0", None)])
def test_reserved_rights_are_heard(value: str, said: str | None) -> None:
    assert opt_out(httpx.Headers({"TDM-Reservation": value}), "unifactory/0.1") == said
