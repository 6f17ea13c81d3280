"""Which addresses a webhook may reach."""

from ipaddress import ip_address

import pytest

from overnight.domain.addresses import Policy, literal, parse_policy, parse_url

REFUSED = [
    ("0.0.0.0", "unspecified"),  # noqa: S104 - refused, not bound to
    ("0.1.2.3", "unspecified"),
    ("10.0.0.1", "private"),
    ("10.255.255.255", "private"),
    ("100.64.0.1", "provider"),
    ("100.100.100.200", "provider"),
    ("100.127.255.255", "provider"),
    ("127.0.0.1", "loopback"),
    ("127.255.255.254", "loopback"),
    ("168.63.129.16", "cloud"),
    ("169.254.0.1", "link-local"),
    ("169.254.169.254", "link-local"),
    ("169.254.170.2", "link-local"),
    ("172.16.0.1", "private"),
    ("172.31.255.255", "private"),
    ("192.0.0.192", "reserved"),
    ("192.0.2.1", "documentation"),
    ("192.88.99.1", "relay"),
    ("192.168.0.1", "private"),
    ("198.18.0.1", "measurements"),
    ("198.19.255.255", "measurements"),
    ("198.51.100.1", "documentation"),
    ("203.0.113.1", "documentation"),
    ("224.0.0.1", "multicast"),
    ("239.255.255.255", "multicast"),
    ("240.0.0.1", "reserved"),
    ("255.255.255.255", "reserved"),
    ("::", "unspecified"),
    ("::1", "loopback"),
    ("::2", "reserved"),
    ("::7f00:1", "reserved"),
    ("::ffff:127.0.0.1", "inside"),
    ("::ffff:169.254.169.254", "inside"),
    ("::ffff:8.8.8.8", "inside"),
    ("64:ff9b::7f00:1", "inside"),
    ("64:ff9b::808:808", "inside"),
    ("64:ff9b:1::1", "inside"),
    ("100::1", "reserved"),
    ("2001::1", "reserved"),
    ("2001:20::1", "reserved"),
    ("2001:db8::1", "documentation"),
    ("2002:7f00:1::", "inside"),
    ("2002:808:808::1", "inside"),
    ("3fff::1", "documentation"),
    ("4000::1", "reserved"),
    ("5f00::1", "reserved"),
    ("fc00::1", "private"),
    ("fd00:ec2::254", "private"),
    ("fe80::1", "link-local"),
    ("febf::1", "link-local"),
    ("fec0::1", "private"),
    ("ff02::1", "multicast"),
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2003::1",
    "2606:4700:4700::1111",
    "3ffe::1",
]
NOTATIONS = [
    ("127.0.0.1", "127.0.0.1"),
    ("127.1", "127.0.0.1"),
    ("127.0.1", "127.0.0.1"),
    ("2130706433", "127.0.0.1"),
    ("0x7f000001", "127.0.0.1"),
    ("0X7F000001", "127.0.0.1"),
    ("0x7f.0.0.1", "127.0.0.1"),
    ("0x7f.1", "127.0.0.1"),
    ("017700000001", "127.0.0.1"),
    ("0177.0.0.1", "127.0.0.1"),
    ("0177.0x0.01", "127.0.0.1"),
    ("10.65535", "10.0.255.255"),
    ("2852039166", "169.254.169.254"),
    ("0xa9fea9fe", "169.254.169.254"),
    ("0251.0376.0251.0376", "169.254.169.254"),
    ("0", "0.0.0.0"),  # noqa: S104 - the same
    ("0x", "0.0.0.0"),  # noqa: S104 - the same
    ("::1", "::1"),
    ("fe80::1%eth0", "fe80::1"),
    ("::ffff:10.0.0.1", "::ffff:10.0.0.1"),
]
NAMES = [
    "example.com",
    "1.2.3.4.5",
    "256.1.1.1",
    "1.2.3.256",
    "4294967296",
    "08.1.1.1",
    "1..2",
    "0xg",
    "a",
    "127.0.0.1.nip.io",
]


@pytest.mark.parametrize(("address", "why"), REFUSED)
def test_what_is_not_public_is_refused(address: str, why: str):
    assert why in str(Policy().problem("example.com", ip_address(address)))


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_is_let_through(address: str):
    assert Policy().problem("example.com", ip_address(address)) is None


@pytest.mark.parametrize(("host", "address"), NOTATIONS)
def test_an_address_is_recognised_in_any_notation(host: str, address: str):
    """Those that resolvers take, from the time before dots were the only way."""
    assert literal(host) == ip_address(address)


@pytest.mark.parametrize("host", NAMES)
def test_a_name_is_no_address(host: str):
    assert literal(host) is None


@pytest.mark.parametrize("host", ["localhost", "api.localhost", "127.1", "0x7f.1", "::1", "fd00:ec2::254"])
def test_a_host_that_cannot_be_reached_is_refused_by_its_name(host: str):
    assert Policy().problem_of_host(host) is not None


@pytest.mark.parametrize("host", ["example.com", "8.8.8.8", "2001:4860:4860::8888", "nolocalhost"])
def test_a_host_that_may_be_public_is_looked_at_later(host: str):
    assert Policy().problem_of_host(host) is None


@pytest.mark.parametrize(
    ("entry", "host", "address", "allowed"),
    [
        ("10.1.0.0/16", "a", "10.1.2.3", True),
        ("10.1.0.0/16", "a", "10.2.2.3", False),
        ("10.1.0.0/16", "a", "::ffff:10.1.2.3", True),
        ("10.1.0.0/16", "a", "::ffff:10.2.2.3", False),
        ("127.0.0.1", "a", "127.0.0.1", True),
        ("127.0.0.1", "a", "127.0.0.2", False),
        ("fd00::/8", "a", "fd12::1", True),
        ("fd00::/8", "a", "10.0.0.1", False),
        ("64:ff9b::/96", "a", "64:ff9b::808:808", True),
        ("hooks.internal", "hooks.internal", "10.0.0.1", True),
        ("Hooks.Internal.", "hooks.internal", "10.0.0.1", True),
        ("hooks.internal", "a.hooks.internal", "10.0.0.1", False),
    ],
)
def test_the_operator_can_allow_networks_and_hosts(entry: str, host: str, address: str, allowed: bool):
    problem = parse_policy([entry]).problem(host, ip_address(address))

    assert (problem is None) is allowed


def test_an_allowed_host_may_be_named():
    policy = parse_policy(["localhost", "127.0.0.0/8"])

    assert policy.problem_of_host("localhost") is None
    assert policy.problem_of_host("127.0.0.1") is None
    assert policy.problem_of_host("a.localhost") is None
    assert policy.problem_of_host("10.0.0.1") is not None


@pytest.mark.parametrize("entry", ["10.0.0.1/8", "10.0.0.0/33", "127.1", "a b", "", "http://a", "*"])
def test_what_allows_nothing_is_refused(entry: str):
    """A typing error must not be taken for the name of a host."""
    with pytest.raises(ValueError, match="is neither a network"):
        parse_policy([entry])


@pytest.mark.parametrize(
    ("url", "secure", "host", "port", "path"),
    [
        ("https://example.com/hook", True, "example.com", 443, "/hook"),
        ("https://Example.COM", True, "example.com", 443, "/"),
        ("http://example.com.:8080/a?b=c", False, "example.com", 8080, "/a?b=c"),
        ("http://[2001:4860::1]:81?x", False, "2001:4860::1", 81, "/?x"),
        ("HTTPS://1.2.3.4/%20", True, "1.2.3.4", 443, "/%20"),
        ("https://xn--bcher-kva.example/", True, "xn--bcher-kva.example", 443, "/"),
    ],
)
def test_a_url_is_read(url: str, secure: bool, host: str, port: int, path: str):
    target = parse_url(url)

    assert (target.secure, target.host, target.port, target.path) == (secure, host, port, path)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "characters"),
        ("example.com/hook", "must begin"),
        ("ftp://example.com", "must begin"),
        ("file:///etc/passwd", "must begin"),
        ("gopher://example.com", "must begin"),
        ("https://", "no host"),
        ("https:///hook", "no host"),
        ("https://user@example.com/", "user or password"),
        ("https://user:pass@example.com/", "user or password"),
        ("https://@example.com/", "user or password"),
        ("https://example.com/#a", "fragment"),
        ("https://example.com:0/", "port 0"),
        ("https://example.com:99999/", "cannot be read"),
        ("https://example.com:a/", "cannot be read"),
        ("https://[::1/", "cannot be read"),
        ("https://[fe80::1%25eth0]/", "no host"),
        ("https://a%2eb/", "no host"),
        ("https://a,b/", "no host"),
        ("https://example.com\\@127.0.0.1/", "characters"),
        ("https://example.com/a b", "characters"),
        ("https://example.com/\r\nHost: a", "characters"),
        ("https://ex\u00e4mple.com/", "characters"),
        ("https://example.com/" + "a" * 2_048, "more than"),
    ],
)
def test_a_url_that_leads_nowhere_or_is_a_trick_is_refused(url: str, why: str):
    with pytest.raises(ValueError, match=why):
        parse_url(url)
