"""Measure `personal`: how much in a text says who or where a person is; counts alone, never the text itself.

Numbers with a checksum must satisfy it, and numbers that any other number could be (national telephone numbers,
identity numbers of digits alone) must stand after a word that says what they are. What is obfuscated (`name at host`)
is not found, nor are names and street addresses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module, metadata
from ipaddress import AddressValueError, IPv4Address, IPv6Address, IPv6Network
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa
from pydantic import field_validator

from pipeline.operator import Column, Measure, Params, Record, text_field

_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])([A-Za-z0-9][A-Za-z0-9._%+-]{0,63})@((?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+"
    r"([A-Za-z]{2,24}))(?![A-Za-z0-9])"
)
# Names that belong to nobody (RFC 2606), and what follows an at-sign in the names of picture files (`logo@2x.png`).
_NOBODY = re.compile(r"(^|\.)(example\.(com|org|net)|example|test|invalid|localhost|png|jpe?g|gif|webp|svg)$", re.I)
_WEB = re.compile(r"\b(?:https?|ftp)://\S+|\bwww\.\S+", re.I)

_IPV4 = re.compile(r"(?<![\w.,])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![\w]|\.[0-9])")
_IPV6 = re.compile(r"(?<![\w:])[0-9A-Fa-f]{4}:[0-9A-Fa-f:]{6,34}(?![\w:])")
_PUBLIC_IPV6 = IPv6Network("2000::/3")
_VERSION = re.compile(
    r"(?:\b(?:versions?|ver|rev|revision|release|build|firmware|driver|section|chapter|clause|table|figure|oid)\b\W{0,3}"
    r"|\bv\.?\s?|[A-Za-z]/|§\s?)$",
    re.I,
)
_IP_WORD = re.compile(r"\bips?\b|\bip-|\b(?:host|server|address|addr|dns|ping|gateway|router)(?:e?s)?\b", re.I)

# As cards are printed: whole, in fours, or 4-6-5 and 4-6-4.
_CARD = re.compile(
    r"(?<![\w.,+-])(?:[0-9]{14,19}|[0-9]{4}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1[0-9]{3})?"
    r"|[0-9]{4}([ -])[0-9]{6}\2[0-9]{4,5})(?![\w]|[.,-][0-9]|[ ][0-9])"
)
# (leading digits from, to, lengths): Visa, Mastercard, American Express, Discover, JCB, Diners Club, UnionPay.
_ISSUERS = (
    ("4", "4", (16, 19)), ("51", "55", (16,)), ("2221", "2720", (16,)), ("34", "34", (15,)), ("37", "37", (15,)),
    ("6011", "6011", (16,)), ("644", "649", (16,)), ("65", "65", (16,)), ("3528", "3589", (16,)),
    ("300", "305", (14,)), ("36", "36", (14,)), ("38", "38", (14,)), ("62", "62", (16, 17, 18, 19)),
)  # fmt: skip
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]){11,30}")


class _Identity(NamedTuple):
    """A national number: the module of `stdnum` that checks it, how it is written, what must stand before it."""

    module: str
    written: re.Pattern[str]
    word: re.Pattern[str] | None = None


def _identity(module: str, written: str, word: str | None = None) -> _Identity:
    bounded = re.compile(rf"(?<![\w.,+-])(?:{written})(?!\w|[.,-][0-9])")
    return _Identity(module, bounded, None if word is None else re.compile(word, re.I))


_IDENTITIES = (
    # Long, dated or lettered: they cannot be much else.
    _identity("fr.nir", r"[12] ?[0-9]{2} ?[0-9]{2} ?[0-9][0-9AB] ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}"),
    _identity("it.codicefiscale", r"[A-Z]{6}[0-9]{2}[A-EHLMPRST][0-9]{2}[A-Z][0-9]{3}[A-Z]"),
    _identity("cn.ric", r"[1-9][0-9]{5}(?:19|20)[0-9]{9}[0-9X]"),
    _identity("br.cpf", r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}"),
    _identity("fi.hetu", r"[0-9]{6}[-+A-F][0-9]{3}[0-9A-Z]"),
    _identity("mx.curp", r"[A-Z]{4}[0-9]{6}[HM][A-Z]{5}[0-9A-Z][0-9]"),
    _identity("kr.rrn", r"[0-9]{6}-[0-9]{7}"),
    # One of ten or of a hundred numbers satisfies these checksums by chance.
    _identity("us.ssn", r"[0-9]{3}-[0-9]{2}-[0-9]{4}", r"\bssn\b|social security"),
    _identity("gb.nhs", r"[0-9]{3} ?[0-9]{3} ?[0-9]{4}", r"\bnhs\b"),
    _identity("de.idnr", r"[0-9]{2} ?[0-9]{3} ?[0-9]{3} ?[0-9]{3}", r"steuer-?id|identifikationsnummer|\bidnr\b"),
    _identity("es.dni", r"[0-9]{8}-?[A-Z]", r"\bdni\b|\bnif\b"),
    _identity("es.nie", r"[XYZ]-?[0-9]{7}-?[A-Z]", r"\bnie\b|\bnif\b"),
    _identity("pl.pesel", r"[0-9]{11}", r"\bpesel\b"),
    _identity("se.personnummer", r"(?:[0-9]{2})?[0-9]{6}[-+]?[0-9]{4}", r"personn(?:umme)?r|personal identity"),
    _identity("tr.tckimlik", r"[1-9][0-9]{10}", r"kimlik|\bt\.?c\.?\b"),
    _identity("in_.aadhaar", r"[2-9][0-9]{3} ?[0-9]{4} ?[0-9]{4}", r"aadha+r|आधार"),
    _identity("za.idnr", r"[0-9]{13}", r"\bid(?:entity)? n(?:umber|o)\b"),
)
_WORD_REACH = 40
"""Characters before a number in which a word says what it is."""

# What is said before a telephone number, in the languages whose numbers are looked for.
_CALL = re.compile(
    r"(?:(?<![A-Za-z])(?:tele?(?:phone|fon|foon|fone|fono|fax)?|t[ée]l(?:[ée]phone)?|tel[ée]fono|phone|ph|fax|mobile|cell"
    r"|call(?: us)?(?: at| on)?|whatsapp|handy|mob|telp|puhelin|puh|simu|điện thoại|đt|ring|dial|number is|móvil"
    r"|portable)(?![A-Za-z])|тел(?:ефон)?|моб|τηλ(?:έφωνο)?|电话|電話|手机|전화|โทร|फ़ोन|फोन|هاتف|טלפון|ტელ|☎|☏|📞|📱)",
    re.I,
)
_PLUS = re.compile(r"[+＋]\s?[(]?[0-9]")
_AMERICAN = re.compile(r"(?<![\w.)+-])\([2-9][0-9]{2}\) ?[2-9][0-9]{2}[-. ][0-9]{4}(?![\w-])")
# What may stand between the word and the number, and the number with its signs.
_DIALLED = re.compile(r"[^\d(+\x00]{0,24}([(+]?\d(?:[\s()/.–-]{0,3}\d){7,14})")
_LEAST_DIGITS = 8

REGIONS = (
    "US", "GB", "DE", "FR", "ES", "IT", "NL", "PL", "PT", "BR", "MX", "RU", "UA", "CN", "JP", "KR", "IN", "AU", "TR",
    "GR", "FI", "CZ", "IL", "EG", "GE", "TH", "VN", "ID", "KE",
)  # fmt: skip
"""Countries whose national telephone numbers are known unless a recipe says otherwise (ISO 3166)."""


class Found(NamedTuple):
    """How often each kind occurs in a text, in the order of the columns."""

    emails: int
    phones: int
    cards: int
    ibans: int
    ips: int
    ids: int


def count_personal(text: str, regions: Sequence[str] = REGIONS) -> Found:
    """Counts in one text. What is one thing is no other: a card number is not looked at as a telephone number."""
    emails = list(_emails(text))
    ips = list(_ips(text))
    rest = _without(text, [*(match.span() for match in _WEB.finditer(text)), *emails, *ips])
    ibans = list(_ibans(rest))
    rest = _without(rest, ibans)
    cards = list(_cards(rest))
    rest = _without(rest, cards)
    ids = list(_ids(rest))
    rest = _without(rest, ids)
    return Found(len(emails), len(set(_phones(rest, regions))), len(cards), len(ibans), len(ips), len(ids))


_Span = tuple[int, int]


def _without(text: str, spans: Sequence[_Span]) -> str:
    """The text with signs in the place of spans, so that nothing moves and nothing joins."""
    parts, end = [], 0
    for low, high in sorted(spans):
        if high > end:
            parts += [text[end : max(end, low)], "\x00" * (high - max(end, low))]
            end = high
    return "".join([*parts, text[end:]])


def _emails(text: str) -> Iterator[_Span]:
    for match in _EMAIL.finditer(text):
        name, host = match.group(1), match.group(2)
        if name.lower() != "git" and ".." not in name and not name.endswith(".") and not _NOBODY.search(host):
            yield match.span()


def _ips(text: str) -> Iterator[_Span]:
    """Public addresses. Four small numbers could be a version too: a word must say that they are an address."""
    for match in _IPV4.finditer(text):
        try:
            address = IPv4Address(match.group())
        except AddressValueError:
            continue
        before = text[max(0, match.start() - _WORD_REACH) : match.start()]
        small = max(map(int, match.group().split("."))) < 100
        said = before.endswith("://") or _IP_WORD.search(before) is not None
        if address.is_global and (said or not (small or _VERSION.search(before))):
            yield match.span()
    for match in _IPV6.finditer(text):
        try:
            long_address = IPv6Address(match.group().rstrip(":"))
        except AddressValueError:
            continue
        if long_address.is_global and long_address in _PUBLIC_IPV6:
            yield match.span()


def _ibans(text: str) -> Iterator[_Span]:
    """Account numbers whose country, length, form and check digits fit; words after one are no part of it."""
    from stdnum import iban

    for match in _IBAN.finditer(text):
        places = [place for place in range(*match.span()) if text[place] not in " -"]
        for size in range(15, len(places) + 1):
            end = places[size - 1] + 1
            if not text[end : end + 1].isalnum() and iban.is_valid("".join(text[place] for place in places[:size])):
                yield match.start(), end
                break


def _cards(text: str) -> Iterator[_Span]:
    from stdnum import luhn

    for match in _CARD.finditer(text):
        digits = re.sub("[ -]", "", match.group())
        known = any(low <= digits[: len(low)] <= high and len(digits) in lengths for low, high, lengths in _ISSUERS)
        # A round number or a row of one digit is no card.
        if known and len(set(digits)) > 1 and not digits.endswith("000000") and luhn.is_valid(digits):
            yield match.span()


def _ids(text: str) -> Iterator[_Span]:
    taken: set[int] = set()
    for kind in _IDENTITIES:
        for match in kind.written.finditer(text):
            before = text[max(0, match.start() - _WORD_REACH) : match.start()]
            if match.start() in taken or (kind.word is not None and not kind.word.search(before)):
                continue
            if _checker(kind.module).is_valid(match.group()):
                taken.add(match.start())
                yield match.span()


@cache
def _checker(module: str) -> Any:
    return import_module(f"stdnum.{module}")


def _phones(text: str, regions: Sequence[str]) -> Iterator[int]:
    """Where telephone numbers begin; some places come twice."""
    from phonenumbers import Leniency, PhoneNumberMatcher

    if _PLUS.search(text):
        for match in PhoneNumberMatcher(text, None, Leniency.VALID):
            # After a figure the sign is one of adding.
            if (
                match.raw_string[0] in "+＋("
                and not text[max(0, match.start - 3) : match.start].rstrip()[-1:].isdigit()
            ):
                yield match.start
    for plain in _AMERICAN.finditer(text):
        if "US" in regions and any(True for _ in PhoneNumberMatcher(plain.group(), "US", Leniency.VALID)):
            yield plain.start()
    for word in _CALL.finditer(text):
        said = _DIALLED.match(text, word.end())
        if said is None:
            continue
        for region in regions:
            found = next(iter(PhoneNumberMatcher(said.group(1), region, Leniency.VALID)), None)
            if found is not None and sum(map(str.isdigit, found.raw_string)) >= _LEAST_DIGITS:
                yield said.start(1) + found.start
                break


class PersonalParams(Params):
    """Which fields are read (each for itself), and the countries whose national telephone numbers are looked for."""

    field: str | tuple[str, ...] = "text"
    regions: tuple[str, ...] = REGIONS

    @field_validator("regions")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for region in value:
            if not re.fullmatch("[A-Z]{2}", region):
                raise ValueError(f"{region!r}: countries are written in two capitals, such as DE")
        return value


class Personal(Measure):
    """Counts of what tells who a person is: addresses, telephone, card, account and identity numbers; no text."""

    name = "personal"
    version = 1
    Params = PersonalParams
    params: PersonalParams
    packages: ClassVar[Mapping[str, str]] = {"phonenumbers": "text", "stdnum": "text"}

    @property
    def columns(self) -> tuple[Column, ...]:
        """See docs/measures.md."""
        whole = pa.int64()
        return (
            Column("emails", whole, "e-mail addresses, but for those of nobody (example.com)", 0, None, "lower"),
            Column("phones", whole, "telephone numbers: with +, or after a word that says so", 0, None, "lower"),
            Column("cards", whole, "numbers of payment cards: issuer, length and checksum fit", 0, None, "lower"),
            Column("ibans", whole, "account numbers (IBAN): country, length and checksum fit", 0, None, "lower"),
            Column("ips", whole, "public IP addresses", 0, None, "lower"),
            Column("ids", whole, "identity numbers of 17 kinds: form and checksum fit", 0, None, "lower"),
            Column("personal", whole, "all of them together", 0, None, "lower"),
        )

    def fingerprint_parts(self) -> dict[str, Any]:
        """The versions of the libraries: they know which numbers are given out."""
        return {name: _version(name) for name in ("phonenumbers", "python-stdnum")}

    def process(self, record: Record) -> Sequence[Any]:
        """The counts, nulls without a text; raises Quarantine when a field holds something else than text."""
        names = (self.params.field,) if isinstance(self.params.field, str) else self.params.field
        fields = record.fields
        texts = [text for text in (text_field(fields, name) for name in names) if text is not None]
        if not texts:
            return (None,) * len(self.columns)
        found = [count_personal(text, self.params.regions) for text in texts]
        counts = [sum(kind) for kind in zip(*found, strict=True)]
        return (*counts, sum(counts))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
