from __future__ import annotations

import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from catalog.errors import UserError
from catalog.storage import LocalFolder
from pipeline.media import MediaReader
from pipeline.sources.base import SourceRow
from pipeline.sources.download import Downloader
from pipeline.sources.fetch import fetch, forget_failure
from pipeline.sources.urls import UrlList
from tests.pipeline.sources.conftest import make
from tests.pipeline.sources.web import Web, serve

QUICK = {"first_wait_s": 0.01, "attempts": 2}
TIGHT: dict[str, Any] = {
    "/wait?s=2": {"read_s": 0.3, "attempts": 1},
    "/drip": {"total_s": 0.7, "attempts": 1},
}


@pytest.fixture
def web() -> Iterator[Web]:
    with serve() as web:
        yield web


@pytest.fixture
def store(tmp_path: Path) -> LocalFolder:
    return LocalFolder(str(tmp_path / "store"))


def config(limits: dict[str, Any] | None = None, **changes: Any) -> UrlList:
    values = {"file": "urls.txt", "network": True, "allow_private": True, **changes}
    source = make("urls", **values, limits={**QUICK, **(limits or {})})
    assert isinstance(source, UrlList)
    return source


def rows_of(urls: list[str]) -> list[SourceRow]:
    return [SourceRow(f"urls.txt:{number}", {"url": url}) for number, url in enumerate(urls, 1)]


def problem(store: LocalFolder, url: str, limits: dict[str, Any] | None = None, **changes: Any) -> Any:
    (row,) = fetch(rows_of([url]), store, config(limits, **changes))
    return row.problem


def test_pictures_come_into_the_store_in_list_order(web: Web, store: LocalFolder) -> None:
    urls = [web.url(f"/wait/{n}?s={0.2 if n % 5 == 0 else 0}") for n in range(20)]
    rows = list(fetch(rows_of(urls), store, config({"per_host": 8})))
    assert [row.fields["url"] for row in rows] == urls
    for row in rows:
        (ref,) = row.media
        data = MediaReader(str(store.uri), store=store.uri).read(ref)
        assert data.decode() == f"picture {row.fields['url'].removeprefix(web.url(''))}"
        digest = sha256(data).hexdigest()
        assert (ref.container, ref.path, ref.digest) == ("store", f"media/{digest[:2]}/{digest}", digest)


def test_results_are_in_list_order_through_a_narrow_window(
    web: Web, store: LocalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.sources.fetch._AHEAD", 2)
    urls = [web.url(f"/wait/{n}?s={0.1 if n % 3 == 0 else 0}") for n in range(15)]
    rows = list(fetch(rows_of(urls), store, config({"concurrency": 2})))
    assert [row.fields["url"] for row in rows] == urls
    assert all(row.problem is None for row in rows)


def test_bad_rows_of_the_list_pass_through(store: LocalFolder) -> None:
    bad = SourceRow("urls.txt:1", {}, (), ("not JSON", "no"), b"{")
    assert list(fetch([bad], store, config())) == [bad]


CREDENTIALS = "the URL holds a user name or password; lists must not"
FAILURES: list[tuple[str, str, str]] = [
    ("/status?is=404", "http 404", "{host} answered 404 Not Found"),
    ("/status?is=403", "http 403", "{host} answered 403 Forbidden"),
    ("/status?is=204", "http 204", "{host} answered 204 No Content"),
    ("/status?is=206", "http 206", "{host} answered 206 Partial Content"),
    ("/status?is=500", "http 500", "{host} answered 500 Internal Server Error"),
    ("/flaky?is=429&times=9", "http 429", "{host} answered 429 Too Many Requests"),
    ("/wait?s=2", "timeout", "{host} sent nothing for 0.3 s"),
    ("/drip", "timeout", "{host} was not done within 0.7 s"),
    ("/big?bytes=100001", "too large", "{host} announced 100,001 bytes, more than 100,000"),
    ("/endless", "too large", "{host} sent more than 100,000 bytes"),
    ("/until_closed?bytes=100001", "too large", "{host} sent more than 100,000 bytes"),
    ("/gzip", "encoded body", "{host} packed the body as \"gzip\" though asked not to"),
    ("/empty", "empty body", "{host} sent no bytes"),
    ("/loop", "too many redirects", "more than 5 redirects"),
    ("/to?url=ftp://x/y", "not http", "the scheme is 'ftp', must be http or https"),
    ("/to?url=http://me:secret@127.0.0.1/", "credentials in the URL", CREDENTIALS),
    ("/header?X-Robots-Tag=noai", "opted out", "{host} says X-Robots-Tag: noai"),
    ("/header?TDM-Reservation=1", "opted out", "{host} says tdm-reservation: 1"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "reason", "message"), FAILURES)
def test_a_failure_has_a_reason_and_is_not_asked_again(
    web: Web, store: LocalFolder, path: str, reason: str, message: str
) -> None:
    expected = (reason, message.format(host="127.0.0.1"))
    limits = {"max_bytes": 100_000, **TIGHT.get(path, {})}
    assert problem(store, web.url(path), limits) == expected
    asked = web.asked.total()
    assert problem(store, web.url(path), limits) == expected
    assert web.asked.total() == asked
    assert list(store.list("media/")) == []


def test_a_server_nobody_thought_of_costs_only_its_own_row(
    web: Web, store: LocalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Downloader._follow

    async def odd(self: Downloader, url: httpx.URL) -> Any:
        if url.path == "/odd":
            raise RuntimeError("never\nseen")
        return await real(self, url)

    monkeypatch.setattr(Downloader, "_follow", odd)
    rows = list(fetch(rows_of([web.url("/odd"), web.url("/ok")]), store, config()))
    assert [row.problem for row in rows] == [
        ("unexpected failure", "127.0.0.1: RuntimeError: never\\nseen"),
        None,
    ]


@pytest.mark.parametrize("path", ["/reset?times=9", "/short"])
def test_a_broken_connection_is_tried_again_and_then_a_failure(web: Web, store: LocalFolder, path: str) -> None:
    found = problem(store, web.url(path), {"attempts": 3})
    assert found[0] == "connection failed"
    assert found[1].startswith("127.0.0.1: ")
    assert web.asked[path] == 3


@pytest.mark.parametrize("path", ["/reset?times=1", "/flaky?times=1&is=503", "/flaky?times=1&is=429&after=0"])
def test_what_passes_is_tried_again(web: Web, store: LocalFolder, path: str) -> None:
    assert problem(store, web.url(path)) is None
    assert web.asked[path] == 2


@pytest.mark.parametrize("path", ["/status?is=404", "/status?is=410", "/header?X-Robots-Tag=noai", "/empty"])
def test_what_does_not_pass_is_asked_once(web: Web, store: LocalFolder, path: str) -> None:
    assert problem(store, web.url(path), {"attempts": 3}) is not None
    assert web.asked[path] == 1


def test_nothing_listens(store: LocalFolder) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert problem(store, f"http://127.0.0.1:{port}/")[0] == "connection failed"


def test_retry_after_quiets_the_whole_host_and_is_capped(web: Web, store: LocalFolder) -> None:
    urls = [web.url("/flaky?times=1&is=429&after=1"), *[web.url(f"/ok/{n}") for n in range(4)]]
    rows = list(fetch(rows_of(urls), store, config({"per_host": 1})))
    assert [row.problem for row in rows] == [None] * 5
    asked = [path for path, _ in web.times].index("/flaky?times=1&is=429&after=1")
    assert len(web.times) > asked + 1
    assert all(moment - web.times[asked][1] >= 0.95 for _, moment in web.times[asked + 1 :])

    for after in ("3000", format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)):
        path = "/flaky?times=1&is=503&after=" + after.replace(" ", "+").replace(",", "%2C")
        start = time.monotonic()
        assert problem(store, web.url(path), {"longest_wait_s": 0.3}) is None
        assert 0.25 <= time.monotonic() - start < 5


def test_a_host_is_asked_by_few_at_once_and_hosts_do_not_wait_for_each_other(web: Web, store: LocalFolder) -> None:
    with serve("127.0.0.2") as other:
        urls = [web.url(f"/wait/{n}?s=0.2") for n in range(12)] + [other.url(f"/ok/{n}") for n in range(6)]
        list(fetch(rows_of(urls), store, config({"per_host": 3})))
        assert 1 < web.most_at_once <= 3
        assert other.times[-1][1] < web.times[-1][1]


def test_the_total_of_requests_at_once_is_bounded(web: Web, store: LocalFolder) -> None:
    urls = [web.url(f"/wait/{n}?s=0.05", host) for n in range(8) for host in ("127.0.0.1", "localhost")]
    list(fetch(rows_of(urls), store, config({"per_host": 8, "concurrency": 4})))
    assert 1 < web.most_at_once <= 4


def test_redirects_are_followed_and_counted(web: Web, store: LocalFolder) -> None:
    hops = web.url("/ok/end")
    for _ in range(3):
        hops = web.url("/to?url=" + hops.replace("&", "%26").replace("?", "%3F"))
    assert problem(store, hops, {"max_redirects": 2}) == ("too many redirects", "more than 2 redirects")
    assert problem(store, hops, {"max_redirects": 3}) is None
    assert problem(store, web.url("/to?url=/ok/relative")) is None


def test_private_addresses_are_refused_unless_allowed(web: Web, store: LocalFolder) -> None:
    for url in (web.url("/ok"), web.url("/ok", "localhost"), f"http://2130706433:{web.server_port}/ok"):
        assert problem(store, url, allow_private=False)[0] == "private address"
    found = problem(store, "http://169.254.169.254/latest/meta-data", allow_private=False)
    assert found == (
        "private address",
        "169.254.169.254 has the address 169.254.169.254, which is not public",
    )
    assert web.asked.total() == 0
    assert problem(store, web.url("/ok"), allow_private=["127.0.0.0/30"]) is None


@pytest.mark.parametrize("target", ["http://127.0.0.2:{port}/ok", "http://169.254.169.254/", "http://[::1]:{port}/"])
def test_a_redirect_to_a_private_address_is_refused(web: Web, store: LocalFolder, target: str) -> None:
    with serve("127.0.0.2") as inner:
        url = web.url("/to?url=" + target.format(port=inner.server_port))
        assert problem(store, url, allow_private=["127.0.0.1/32"])[0] == "private address"
        assert inner.asked.total() == 0
    assert web.asked.total() == 1


def resolve_as(monkeypatch: pytest.MonkeyPatch, answers: dict[str, list[str]]) -> list[str]:
    """Make names resolve to each of their addresses in turn; gives the list of names that were looked up."""
    looked_up: list[str] = []
    real = socket.getaddrinfo

    def fake(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in answers:
            return real(host, port, *args, **kwargs)
        looked_up.append(name)
        address = answers[name].pop(0) if len(answers[name]) > 1 else answers[name][0]
        return real(address, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", fake)
    return looked_up


def test_the_address_that_was_checked_is_the_one_connected_to(
    web: Web, store: LocalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = resolve_as(monkeypatch, {"rebind.test": ["127.0.0.1", "127.0.0.2"]})
    with serve("127.0.0.2") as inner:
        url = web.url("/ok", "rebind.test")
        assert problem(store, url, allow_private=["127.0.0.1/32"]) is None
        assert looked_up == ["rebind.test"]
        assert inner.asked.total() == 0
        assert problem(store, url + "/2", allow_private=["127.0.0.1/32"])[0] == "private address"
    assert web.headers[0]["host"] == f"rebind.test:{web.server_port}"


def test_an_unknown_host_is_named(store: LocalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert problem(store, "http://nowhere.test/x.jpg") == ("unknown host", "nowhere.test is not known")


def test_https_certificates_are_checked_for_the_name_not_the_address(
    tmp_path: Path, store: LocalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = _certificate(tmp_path, "good.test")
    resolve_as(monkeypatch, {"good.test": ["127.0.0.1"], "evil.test": ["127.0.0.1"]})
    trusting = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr(httpx, "create_ssl_context", lambda **_: trusting)
    with serve() as web:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        web.socket = context.wrap_socket(web.socket, server_side=True)
        good = web.url("/ok", "good.test").replace("http:", "https:")
        assert problem(store, good) is None
        found = problem(store, good.replace("good", "evil"))
    assert found[0] == "connection failed"
    assert "certificate is not valid for 'evil.test'" in found[1]


def _certificate(folder: Path, name: str) -> tuple[Path, Path]:
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subject = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, *files]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def test_nothing_is_asked_unless_the_recipe_allows_the_network(web: Web, store: LocalFolder, root: Path) -> None:
    (root / "urls.txt").write_text(web.url("/ok"))
    source = config(network=False)
    message = 'urls "urls.txt": set network: true to let this source fetch from the network'
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        fetch(source.rows(root), store, source)
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        source.check(root)
    assert web.asked.total() == 0


def test_a_url_is_fetched_once_and_bytes_are_stored_once(web: Web, store: LocalFolder) -> None:
    urls = [web.url(f"/same/{n % 4}") for n in range(12)]
    first = list(fetch(rows_of(urls), store, config({"per_host": 8})))
    assert {row.media[0].digest for row in first} == {sha256(b"the same picture").hexdigest()}
    assert len(list(store.list("media/"))) == 1
    assert set(web.asked.values()) == {1}
    before = {name: store.read(name) for name, _ in store.list()}
    assert list(fetch(rows_of(urls), store, config())) == first
    assert set(web.asked.values()) == {1}
    assert {name: store.read(name) for name, _ in store.list()} == before


def test_an_interrupted_list_goes_on_where_it_was(web: Web, store: LocalFolder) -> None:
    urls = [web.url(f"/ok/{n}") for n in range(40)]
    narrow = config({"concurrency": 1})
    some = fetch(rows_of(urls), store, narrow)
    for _ in range(10):
        next(some)
    some.close()  # type: ignore[attr-defined]
    assert 0 < web.asked.total() < 40
    assert [row.problem for row in fetch(rows_of(urls), store, narrow)] == [None] * 40
    # One request may have been under way when the consumer stopped.
    assert web.asked.total() <= 41


def test_a_list_without_end_is_read_as_far_as_needed(web: Web, store: LocalFolder) -> None:
    read = 0

    def endless() -> Iterator[SourceRow]:
        nonlocal read
        while True:
            read += 1
            yield SourceRow(f"urls.txt:{read}", {"url": web.url("/ok")})

    some = fetch(endless(), store, config({"concurrency": 1}))
    assert [next(some).problem for _ in range(5)] == [None] * 5
    some.close()  # type: ignore[attr-defined]
    assert read <= 16 + 5


def test_a_killed_run_does_not_ask_again_for_what_it_had(web: Web, store: LocalFolder, tmp_path: Path) -> None:
    (tmp_path / "urls.txt").write_text("\n".join(web.url(f"/ok/{n}") for n in range(30)) + "\n" + web.url("/wait?s=9"))
    program = (
        "import sys; from pathlib import Path\n"
        "from catalog.storage import LocalFolder\n"
        "from pipeline.sources.fetch import fetch\n"
        "from pipeline.sources.urls import UrlList\n"
        "source = UrlList.model_validate_json(sys.argv[1])\n"
        "for row in fetch(source.rows(Path(sys.argv[2])), LocalFolder(sys.argv[3]), source):\n"
        "    print(row.place, flush=True)\n"
    )
    source = config()
    arguments = [sys.executable, "-c", program, source.model_dump_json(), str(tmp_path), store.uri]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for _ in range(30):
            running.stdout.readline()
        running.kill()
    asked = web.asked.total()
    assert asked in (30, 31)
    rows = list(fetch(list(config().rows(tmp_path))[:30], store, config()))
    assert [row.problem for row in rows] == [None] * 30
    assert web.asked.total() == asked


def test_other_limits_ask_failures_again_and_judge_successes_anew(web: Web, store: LocalFolder) -> None:
    url = web.url("/until_closed?bytes=5000")
    assert problem(store, url, {"max_bytes": 1000})[0] == "too large"
    assert problem(store, url, {"max_bytes": 9000}) is None
    assert web.asked.total() == 2
    assert problem(store, url, {"max_bytes": 2000}) == ("too large", "has 5,000 bytes, more than 2,000")
    assert problem(store, url, {"max_bytes": 9000}, allow_private=False)[0] == "private address"
    assert web.asked.total() == 2


def test_how_many_are_asked_at_once_is_no_reason_to_ask_again(web: Web, store: LocalFolder) -> None:
    url = web.url("/status?is=404")
    assert problem(store, url)[0] == problem(store, url, {"concurrency": 1, "per_host": 1})[0] == "http 404"
    assert web.asked.total() == 1


def test_a_forgotten_failure_is_asked_again(web: Web, store: LocalFolder) -> None:
    url = web.url("/flaky?times=2&is=503")
    assert problem(store, url)[0] == "http 503"
    forget_failure(url, store, config())
    assert problem(store, url) is None


def test_bytes_that_were_taken_out_are_not_brought_back(web: Web, store: LocalFolder) -> None:
    url = web.url("/ok")
    (row,) = fetch(rows_of([url]), store, config())
    store.delete(row.media[0].path)
    assert problem(store, url) == ("taken out", "was fetched once, but its bytes are no longer in the store")
    assert web.asked.total() == 1


def test_a_store_that_cannot_be_written_stops_the_run(
    web: Web, store: LocalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LocalFolder, "create", full)
    with pytest.raises(OSError, match="No space left"):
        list(fetch(rows_of([web.url("/ok")]), store, config()))


def test_a_bad_row_further_down_stops_a_run_that_wants_to_stop(web: Web, store: LocalFolder, root: Path) -> None:
    (root / "list.jsonl").write_bytes(orjson.dumps({"url": web.url("/ok")}) + b"\n{}\n")
    source = config(file="list.jsonl")
    with pytest.raises(UserError, match=r"^list.jsonl:2: url is null, must be text; fix the line"):
        list(fetch(source.rows(root), store, source))


def test_servers_are_told_who_asks_and_get_no_cookies(
    web: Web, store: LocalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    list(fetch(rows_of([web.url(f"/cookie/{n}") for n in range(3)]), store, config({"per_host": 1})))
    assert web.asked.total() == 3
    for headers in web.headers:
        assert headers["user-agent"] == "unifactory/0.1"
        assert headers["accept-encoding"] == "identity"
        assert "cookie" not in headers
