from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.addresses import AddressRule, is_public, parse_url
from pipeline.sources.base import BadRow

NOT_PUBLIC = [
    "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254",
    "0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1",
    "168.63.129.16", "100.100.100.200", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1",
    "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1",
    "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::",
    "2002:a00:1::",
]  # fmt: skip
PUBLIC = [
    "8.8.8.8",
    "93.184.216.34",
    "2606:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::",
]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_inside_are_refused(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    with pytest.raises(BadRow, match="which is not public"):
        AddressRule().check("host", ["8.8.8.8", address])
    assert AddressRule(all_private=True).permits(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_of_the_open_internet_are_permitted(address: str) -> None:
    AddressRule().check("host", [address])


def test_a_network_can_be_allowed_alone() -> None:
    rule = AddressRule(networks=(ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00::/64")))
    assert rule.permits("10.1.2.3")
    assert rule.permits("fd00::5")
    assert not rule.permits("10.2.0.1")
    assert not rule.permits("127.0.0.1")


@given(st.ip_addresses(v=4))
def test_wrapping_an_address_does_not_change_what_it_is(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    wrapped = [0xFFFF << 32 | number, (0x0064_FF9B << 96) | number, (0x2002 << 112) | (number << 80)]
    for value in wrapped:
        assert is_public(ipaddress.IPv6Address(value)) == is_public(address)


CREDENTIALS = "the URL holds a user name or password; lists must not"
CONTROL = "not a URL: Invalid non-printable ASCII character in URL, '\\x01' at position 9."
BAD_URLS = [
    ("", "not http", "the scheme is 'missing', must be http or https"),
    ("picture.jpg", "not http", "the scheme is 'missing', must be http or https"),
    ("ftp://x/y", "not http", "the scheme is 'ftp', must be http or https"),
    ("file:///etc/passwd", "not http", "the scheme is 'file', must be http or https"),
    ("http:///x", "not a URL", "the URL has no usable host"),
    ("http://exa mple.com/", "not a URL", "the URL has no usable host"),
    ("http://h/\x01", "not a URL", CONTROL),
    ("http://me:pw@h/x", "credentials in the URL", CREDENTIALS),
    ("http://good.test\\@evil.test/", "credentials in the URL", CREDENTIALS),
    ("http://h:99999/", "not a URL", "the port is 99999, must be 1 to 65535"),
    ("http://h:0/", "not a URL", "the port is 0, must be 1 to 65535"),
    ("http://h/" + "x" * 9000, "not a URL", "the URL is longer than 8192 characters"),
]  # fmt: skip


@pytest.mark.parametrize(("url", "reason", "message"), BAD_URLS)
def test_what_is_no_plain_web_address_is_refused(url: str, reason: str, message: str) -> None:
    with pytest.raises(BadRow) as refused:
        parse_url(url)
    assert (refused.value.reason, str(refused.value)) == (reason, message)


def test_one_page_has_one_name() -> None:
    assert str(parse_url(" HTTP://Ex.test:80/é?q=ü#part\n")) == "http://ex.test/%C3%A9?q=%C3%BC"
    assert parse_url("http://ü.test/").raw_host == b"xn--tda.test"
