"""Tables: valid ``Host`` and ``Origin`` headers, clients of proxies."""

from __future__ import annotations

import pytest

from exchange.doors.names import (
    MAX_HOPS,
    MAX_SHOWN,
    Names,
    Proxies,
    read_host,
    read_network,
    read_origin,
    write_origin,
)

LISTED = "https://trade.example.org", "http://localhost:3000"


def names(is_tls: bool = False, checks_host: bool = False) -> Names:
    """The names of an exchange on port 8765 of a machine called desk."""
    scheme = "https" if is_tls else "http"
    hosts = ["localhost", "desk", "desk.local"]
    return Names(
        hosts=hosts,
        origins=[
            *((scheme, host, 8765) for host in hosts),
            *map(read_origin, LISTED),
        ],
        is_tls=is_tls,
        checks_host=checks_host,
    )


# What a browser may send ----------------------------------------------------


@pytest.mark.parametrize(
    "text, host",
    [
        ("localhost", ("localhost", None)),
        ("LocalHost:8765", ("localhost", 8765)),
        ("localhost:", ("localhost", None)),
        ("example.org.", ("example.org", None)),
        ("example.org.:443", ("example.org", 443)),
        ("my_desk-2", ("my_desk-2", None)),
        ("xn--brse-5qa.example", ("xn--brse-5qa.example", None)),
        ("127.0.0.1:9000", ("127.0.0.1", 9000)),
        ("[::1]:9000", ("[::1]", 9000)),
        ("[0:0::0:1]", ("[::1]", None)),
        ("[2001:DB8::A]", ("[2001:db8::a]", None)),
    ],
)
def test_a_host_is_read(text: str, host: tuple[str, int | None]) -> None:
    assert read_host(text) == host


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", ":80", ".", "a..b", ".a", "a b", " a", "a/", "a@b", "a,b"),
        *("a:b", "a:80:80", "a:0", "a:65536", "a:-1", "*", "*.example.org"),
        *("::1", "[::1", "[::g]", "[::1%eth0]", "[]", "[127.0.0.1]"),
        *("256.0.0.1", "127.1", "1", "a.1", "2130706433"),
        *("börse.example", "\N{KELVIN SIGN}.example", "a\n", "a\0"),
    ],
)
def test_an_invalid_host(text: str) -> None:
    assert read_host(text) is None


@pytest.mark.parametrize(
    "text, origin",
    [
        ("https://example.org", "https://example.org"),
        ("https://example.org/", "https://example.org"),
        ("HTTPS://Example.ORG", "https://example.org"),
        ("https://example.org:443", "https://example.org"),
        ("http://example.org:80/", "http://example.org"),
        ("http://example.org:443", "http://example.org:443"),
        ("https://example.org.", "https://example.org"),
        ("http://localhost:03000", "http://localhost:3000"),
        ("http://[0::1]:9000", "http://[::1]:9000"),
        ("http://10.0.0.7:8765", "http://10.0.0.7:8765"),
    ],
)
def test_an_origin_is_written_as_browsers_write_it(
    text: str, origin: str
) -> None:
    assert write_origin(read_origin(text)) == origin


@pytest.mark.parametrize(
    "text",
    [
        *("", "*", "null", "example.org", "example.org:443", "//example.org"),
        *("https://", "https:///", "https://*", "https://*.example.org"),
        *("ws://example.org", "wss://example.org", "file://", "ftp://a"),
        *("https://example.org/exchange", "https://example.org//"),
        *("https://example.org?a", "https://example.org#a", "https://a@b"),
        *("https://a b", "https ://a", "https://börse.example", "https:a"),
        *("https://a:0", "https://a:x", "https://127.1", "https://[::1"),
    ],
)
def test_an_invalid_origin_is_named(text: str) -> None:
    with pytest.raises(
        ValueError, match="is not an origin: give http:// or"
    ) as e:
        read_origin(text)
    assert str(e.value).isascii()
    name = text.replace("ö", r"\xf6")
    assert str(e.value).startswith(f"{name} is no")


# Whose page it is -----------------------------------------------------------


@pytest.mark.parametrize(
    "host, origin",
    [
        # Opened by a name of the machine, on its port or a forwarded one.
        ("localhost:8765", "http://localhost:8765"),
        ("localhost:9000", "http://localhost:9000"),
        ("LOCALHOST:9000", "http://LOCALHOST:9000"),
        ("localhost", "http://localhost"),
        ("localhost:80", "http://localhost"),
        ("desk:8765", "http://desk:8765"),
        ("desk.local:9000", "http://desk.local:9000"),
        ("desk.:9000", "http://desk.:9000"),
        # By an address, which needs no name.
        ("127.0.0.2:9000", "http://127.0.0.2:9000"),
        ("[::1]:9000", "http://[::1]:9000"),
        ("[fe80::1]:9000", "http://[fe80:0::1]:9000"),
        ("0.0.0.0:8765", "http://0.0.0.0:8765"),
        # Behind a proxy that serves TLS.
        ("localhost:9000", "https://localhost:9000"),
        ("10.0.0.7", "https://10.0.0.7"),
        ("trade.example.org", "https://trade.example.org"),
        ("trade.example.org:443", "https://trade.example.org"),
        # The host of a listed origin, also with another port or scheme.
        ("trade.example.org:9443", "https://trade.example.org:9443"),
        ("trade.example.org", "http://trade.example.org"),
        # A listed origin, or a usual name of ours, with any host.
        ("127.0.0.1:8765", "https://trade.example.org"),
        ("evil.example", "https://trade.example.org"),
        ("localhost:8765", "http://localhost:3000"),
        ("127.0.0.1:8765", "http://localhost:8765"),
    ],
)
def test_a_page_of_the_exchange(host: str, origin: str) -> None:
    assert names().refusal([host], [origin]) is None


@pytest.mark.parametrize(
    "host, origin",
    [
        # A page of another host, port or address.
        ("localhost:8765", "http://evil.example"),
        ("localhost:8765", "http://localhost"),
        ("localhost:8765", "http://localhost:8766"),
        ("localhost", "http://localhost:8766"),
        ("localhost:8765", "http://127.0.0.2:8765"),
        ("10.0.0.7:8765", "http://10.0.0.8:8765"),
        ("localhost:8765", "http://desk.evil.example:8765"),
        ("trade.example.org", "https://www.trade.example.org"),
        ("127.0.0.1:8765", "http://trade.example.org"),
        ("localhost:80", "https://localhost"),
        # A foreign name that resolves to this machine.
        ("evil.example:8765", "http://evil.example:8765"),
        ("evil.example", "https://evil.example"),
        ("localhost.evil.example", "http://localhost.evil.example"),
        ("evil.1:8765", "http://evil.1:8765"),
        # A page without an origin: a file, a sandbox.
        ("localhost:8765", "null"),
        ("", ""),
        ("", "http://"),
        ("localhost:8765", "localhost:8765"),
        ("localhost:8765", "http://localhost:8765/path"),
        ("localhost:8765", "http://localhost:8765 http://evil.example"),
        ("localhost:8765", "chrome-extension://abc"),
        ("localhost:8765", "http://\xe9"),
    ],
)
def test_a_foreign_page(host: str, origin: str) -> None:
    for judge in (names(), names(checks_host=True)):
        refusal = judge.refusal([host], [origin])
        assert refusal is not None
        assert refusal.reason.isascii()
        assert "EXCHANGE_SERVER_ORIGINS" in refusal.reason


def test_pages_of_an_exchange_with_tls_are_https() -> None:
    """An attacker on the network can forge a page over http."""
    judge = names(is_tls=True)
    assert judge.refusal(["localhost:9"], ["https://localhost:9"]) is None
    assert judge.refusal(["localhost:9"], ["http://localhost:9"])
    assert judge.refusal(["localhost:8765"], ["http://localhost:8765"])


@pytest.mark.parametrize(
    "hosts, is_ours",
    [
        (["localhost:9000"], True),
        (["desk.local"], True),
        (["127.0.0.9"], True),
        (["TRADE.example.org:9000"], True),
        (["evil.example"], False),
        (["localhost", "localhost"], False),
        ([""], False),
        ([], False),
    ],
)
def test_programs_need_a_valid_host_where_it_is_checked(
    hosts: list[str], is_ours: bool
) -> None:
    assert names().refusal(hosts, []) is None
    refusal = names(checks_host=True).refusal(hosts, [])
    assert (refusal is None) == is_ours
    assert refusal is None or refusal.header == "host"


def test_a_refusal_names_the_setting() -> None:
    refusal = names().refusal(["localhost"], ["https://x.example"])
    assert refusal is not None and refusal.header == "origin"
    assert refusal.reason == (
        "origin https://x.example is not in EXCHANGE_SERVER_ORIGINS"
    )
    refusal = names(checks_host=True).refusal(["x.example:80"], [])
    assert refusal is not None and refusal.reason == (
        "host x.example:80 is not in an origin of EXCHANGE_SERVER_ORIGINS"
    )
    refusal = names().refusal([], ["x" * 8_000])
    assert refusal is not None and len(refusal.reason) < 2 * MAX_SHOWN


# Whom a proxy speaks for ----------------------------------------------------

PEER = "10.0.0.1"
NETWORKS = "10.0.0.0/24", "fd00::/8", "192.0.2.1"


@pytest.fixture
def proxies() -> Proxies:
    return Proxies(map(read_network, NETWORKS))


@pytest.mark.parametrize(
    "peer, is_proxy",
    [
        ("10.0.0.1", True),
        ("10.0.1.1", False),
        ("192.0.2.1", True),
        ("fd00::1", True),
        ("fd00::1%eth0", True),
        ("::ffff:10.0.0.1", True),
        ("::1", False),
        ("", False),
    ],
)
def test_which_peers_are_proxies(
    proxies: Proxies, peer: str, is_proxy: bool
) -> None:
    assert proxies.include(peer) == is_proxy
    assert not Proxies().include(peer)


@pytest.mark.parametrize(
    "lines, client",
    [
        (["203.0.113.7"], "203.0.113.7"),
        (["203.0.113.7:51234"], "203.0.113.7"),
        (["[2001:db8::7]:51234"], "2001:db8::7"),
        (["[2001:db8::7]"], "2001:db8::7"),
        (["2001:DB8::7"], "2001:db8::7"),
        (["fe80::7%eth0"], "fe80::7"),
        (["::ffff:203.0.113.7"], "203.0.113.7"),
        # The right-most address that is no proxy; clients can forge others.
        (["6.6.6.6, 203.0.113.7"], "203.0.113.7"),
        (["6.6.6.6,203.0.113.7 ,\t10.0.0.2"], "203.0.113.7"),
        (["6.6.6.6", "203.0.113.7", "10.0.0.2, fd00::2"], "203.0.113.7"),
        (["rubbish, 203.0.113.7, 192.0.2.1"], "203.0.113.7"),
        (["6.6.6.6," * 1_000 + "203.0.113.7"], "203.0.113.7"),
        # Only proxies: the first of them.
        (["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        # Invalid lines: the peer itself.
        ([], PEER),
        ([""], PEER),
        ([" "], PEER),
        (["unknown"], PEER),
        (["203.0.113.7,"], PEER),
        (["203.0.113.7, unix:"], PEER),
        (["203.0.113.7, rubbish, 10.0.0.2"], PEER),
        (["203.0.113.7:x"], PEER),
        (["300.0.0.1"], PEER),
        (["203.0.113.7/32"], PEER),
        (['"203.0.113.7"'], PEER),
        (["for=203.0.113.7"], PEER),
        (["203.0.113.7" + ", 10.0.0.2" * MAX_HOPS], PEER),
        (["10.0.0.2," * 1_000], PEER),
        (["\xe9" * 1_000], PEER),
    ],
)
def test_the_client_behind_a_proxy(
    proxies: Proxies, lines: list[str], client: str
) -> None:
    assert proxies.client(PEER, lines) == client


@pytest.mark.parametrize(
    "text", ["", "*", "localhost", "10.0.0.1/8", "10.0.0.0/33", "1", "a/8"]
)
def test_an_invalid_network(text: str) -> None:
    with pytest.raises(ValueError, match="give an address or a network"):
        read_network(text)
