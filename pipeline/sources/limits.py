"""How hard web servers may be asked."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(gt=0, le=3600)]
Count = Annotated[int, Field(ge=1, le=1024)]


class Limits(BaseModel):
    """How hard servers may be asked, and how much they may send; times in seconds, sizes in bytes.

    `total_s` bounds one request from connecting to the last byte. A host that sends Retry-After is left alone
    for that long, at most `longest_wait_s`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    concurrency: Count = 32
    per_host: Count = 2
    attempts: Count = 3
    first_wait_s: Seconds = 1.0
    longest_wait_s: Seconds = 60.0
    connect_s: Seconds = 10.0
    read_s: Seconds = 20.0
    total_s: Seconds = 60.0
    max_bytes: Annotated[int, Field(ge=1, le=2**31)] = 20 * 2**20
    max_redirects: Annotated[int, Field(ge=0, le=20)] = 5
    user_agent: Annotated[str, Field(pattern=r"^[!-~][ -~]*$")] = "unifactory/0.1"
