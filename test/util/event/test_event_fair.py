"""Hidden values: the same everywhere, within bounds, and committed to."""

from __future__ import annotations

import hmac
import statistics
from collections.abc import Iterator
from fractions import Fraction
from hashlib import sha256
from itertools import count, islice
from math import isqrt
from pathlib import Path

import pytest

from test.util.event.files import EVENT, MARKET, write_event
from util.event.chance import (
    SecretError,
    Stream,
    root_scale,
    scale,
    secret_of,
    simulated_secret,
)
from util.event.fair import (
    FairError,
    FairPaths,
    edge_of,
    house_seed,
    label_of,
    make_paths,
    read_paths,
)
from util.event.file import Event, read_event

SECRET = bytes(range(32))
LONG = 4_500  # seconds


@pytest.fixture
def event(tmp_path: Path) -> Event:
    return read_event(write_event(tmp_path))


def made(event: Event, name: str = "A", attempt: int = 1) -> FairPaths:
    return make_paths(event, name, "all", attempt, SECRET)


def variant(tmp_path: Path, *changes: tuple[str, str]) -> Event:
    """Return the event with changes of its file."""
    text = EVENT
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return read_event(write_event(tmp_path, text))


# Chance -------------------------------------------------------------------


def test_a_stream_is_made_of_hashes() -> None:
    key = hmac.new(SECRET, b"A/all/1/GS", sha256).digest()
    blocks = b"".join(
        hmac.new(key, number.to_bytes(8, "big"), sha256).digest()
        for number in range(3)
    )
    stream = Stream(SECRET, "A/all/1/GS")
    words = [stream.word() for _ in range(24)]
    assert b"".join(word.to_bytes(4, "big") for word in words) == blocks


def test_a_normal_number_is_twelve_uniform_ones() -> None:
    first, second = Stream(SECRET, "x"), Stream(SECRET, "x")
    words = sum(first.word() for _ in range(12))
    assert second.normal() == words - 6 * 2**32


def test_normal_numbers_have_the_deviation_1() -> None:
    stream = Stream(SECRET, "normal")
    numbers = [stream.normal() / 2**32 for _ in range(20_000)]
    assert abs(statistics.fmean(numbers)) < 0.03
    assert abs(statistics.pstdev(numbers) - 1) < 0.03


def test_numbers_within_bounds() -> None:
    stream = Stream(SECRET, "within")
    numbers = [stream.within(-2, 3) for _ in range(6_000)]
    assert set(numbers) == set(range(-2, 4))
    assert all(900 < numbers.count(n) < 1_100 for n in range(-2, 4))
    assert stream.within(5, 5) == 5


def test_factors_are_rounded_once() -> None:
    assert scale(Fraction(3, 2)) == 3 << 19
    assert root_scale(Fraction(4)) == 2 << 20
    assert root_scale(Fraction(2)) == 1_482_910  # of 1.4142135...


def test_the_secret_is_made_once(tmp_path: Path) -> None:
    secret = secret_of(tmp_path / "data")
    assert len(secret) == 32 and secret_of(tmp_path / "data") == secret
    assert secret_of(tmp_path / "other") != secret
    file = tmp_path / "data/secret"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text() == secret.hex() + "\n"
    assert [*file.parent.iterdir()] == [file]


def test_a_damaged_secret_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("12")
    with pytest.raises(SecretError, match="secret: not 32 bytes"):
        secret_of(tmp_path)
    assert (tmp_path / "secret").read_text() == "12"


def test_a_simulation_has_the_secret_of_its_seed() -> None:
    assert simulated_secret(7) == simulated_secret(7) != simulated_secret(8)


# Paths --------------------------------------------------------------------


def test_golden_values(event: Event) -> None:
    """Values of another machine; a change of one breaks old events."""
    paths = made(event)
    assert paths.commitment == (
        "5dd82b25636a8c80322605c0808dd52a7032955f524580bf2bc57346dcd2173f"
    )
    lines = paths.text().splitlines()
    assert [*lines[:3], lines[500]] == [
        "# salt 96374b203674a23c919b7812a6507c34",
        "ms,BOND,GS,MS,XLF,CALL",
        "0,1000,4200,3000,26400,200",
        "49800,1000,4223,2988,26386,223",
    ]
    assert paths.prices(300_000) == {
        "BOND": 1000,
        "GS": 4322,
        "MS": 2992,
        "XLF": 26604,
        "CALL": 322,
    }


def test_one_value_each_100_ms(event: Event) -> None:
    paths = made(event)
    assert {len(values) for values in paths.values.values()} == {3_001}
    assert paths.last_ms == 300_000
    rows = [line.split(",") for line in paths.text().splitlines()[2:]]
    assert [int(row[0]) for row in rows] == [*range(0, 300_001, 100)]
    assert made(event, "Final").last_ms == 600_000


def test_each_match_and_attempt_has_values_of_its_own(event: Event) -> None:
    assert made(event).text() == made(event).text()
    others = {
        made(event).commitment,
        made(event, attempt=2).commitment,
        made(event, "B").commitment,
        make_paths(event, "A", "03", 1, SECRET).commitment,
        make_paths(event, "A", "all", 1, bytes(32)).commitment,
    }
    assert len(others) == 5
    assert made(event).salt != made(event, attempt=2).salt


def test_a_constant_stays(event: Event) -> None:
    assert set(made(event).values["BOND"]) == {1000}


def test_a_walk_has_its_sigma(tmp_path: Path) -> None:
    event = variant(
        tmp_path,
        ("trading = 300", f"trading = {LONG}"),
        ("jump = { every = 90, sigma = 40 }\n", ""),
        ("jump = 60", "jump = 0"),
        ("sigma = 2.0", "sigma = 2.5"),
        ("start = 4200", "start = 50000"),
    )
    walk = made(event).values["GS"]
    a_second = [b - a for a, b in zip(walk[::10], walk[10::10])]
    assert abs(statistics.pstdev(a_second) - 2.5) < 0.15
    assert abs(statistics.fmean(a_second)) < 0.1


def test_jumps_come_as_often_as_said(tmp_path: Path) -> None:
    event = variant(
        tmp_path,
        ("trading = 300", f"trading = {LONG}"),
        ("sigma = 2.0", "sigma = 0"),
        ("jump = 60", "jump = 0"),
        ("start = 4200", "start = 50000"),
    )
    walk = made(event).values["GS"]
    jumps = [b - a for a, b in zip(walk, walk[1:]) if b != a]
    assert abs(len(jumps) - LONG / 90) < 20
    assert abs(statistics.pstdev(jumps) - 40) < 10


def test_news_moves_the_value_at_its_time(tmp_path: Path) -> None:
    calm = (("sigma = 2.0", "sigma = 0"), ("jump = { every = 90, sigma", "#"))
    event = variant(tmp_path, *calm)
    paths = made(event)
    assert paths.at(119_999, "GS") == 4200
    assert paths.at(120_000, "GS") == 4260
    assert paths.at(300_000, "GS") == 4260
    only_b = ("at = 120", 'at = 120\nrounds = ["B"]')
    event = variant(tmp_path, *calm, only_b)
    assert made(event).at(120_000, "GS") == 4200
    assert made(event, "B").at(120_000, "GS") == 4260


def test_a_jump_at_the_opening_moves_the_first_value(tmp_path: Path) -> None:
    event = variant(tmp_path, ("at = 120", "at = 0"))
    assert made(event).at(0, "GS") == 4260


def test_jumps_at_one_time_are_added_up(tmp_path: Path) -> None:
    more = '[[news]]\nat = 120\nsymbol = "BOND"\nheadline = "x"\njump = -7\n'
    path = write_event(tmp_path, EVENT + more + more)
    paths = made(read_event(path))
    assert (paths.at(119_900, "BOND"), paths.at(120_000, "BOND")) == (
        1000,
        986,
    )


def test_baskets_and_derivatives_follow(event: Event) -> None:
    values = made(event).values
    for step in range(0, 3_001, 50):
        bond, gs, ms, xlf, call = (v[step] for v in values.values())
        assert xlf == 3 * bond + 2 * gs + 5 * ms
        assert call == max(0, gs - 4000)


def test_a_basket_for_several_lots_is_rounded_down(tmp_path: Path) -> None:
    market = MARKET.replace("lot = 10", "lot = 10\nper = 10")
    event = read_event(write_event(tmp_path, EVENT, market))
    values = made(event).values
    for step in range(0, 3_001, 50):
        bond, gs, ms, xlf, _ = (v[step] for v in values.values())
        assert xlf == (3 * bond + 2 * gs + 5 * ms) // 10


def test_values_stay_within_the_prices(tmp_path: Path) -> None:
    market = MARKET.replace(
        "[instruments.GS]\nmax_price = 100000",
        "[instruments.GS]\nmin_price = 4195\nmax_price = 4205",
    )
    path = write_event(tmp_path, EVENT, market)
    walk = made(read_event(path)).values["GS"]
    assert (min(walk), max(walk)) == (4195, 4205)


def test_the_first_and_the_last_value_hold_beyond(event: Event) -> None:
    paths = made(event)
    assert paths.at(-5, "GS") == paths.at(99, "GS") == paths.values["GS"][0]
    assert paths.at(10**9, "GS") == paths.values["GS"][-1]
    assert paths.at(150, "GS") == paths.values["GS"][1]


def numbers_of(secret: bytes, label: str) -> Iterator[int]:
    """Yield a stream of numbers as `docs/EVENT.md` describes it."""
    key = hmac.new(secret, label.encode(), sha256).digest()
    for block in count():
        text = hmac.new(key, block.to_bytes(8, "big"), sha256).hexdigest()
        yield from (int(text[at : at + 8], 16) for at in range(0, 64, 8))


def test_the_document_is_enough_to_draw_the_values(event: Event) -> None:
    """GS: sigma 2, a jump of 40 each 90 s, news of 60 ticks at 120 s."""
    numbers = numbers_of(SECRET, "A/all/1/GS")

    def normal() -> int:
        return sum(islice(numbers, 12)) - 6 * 2**32

    sigma = isqrt(4 * 2**40 // 10)  # 2 / sqrt(10), in units of 2**-20
    place, values = 4200 * 2**52, [4200]
    for step in range(1, 3_001):
        place += normal() * sigma
        if next(numbers) < 2**32 // (10 * 90):
            place += normal() * 40 * 2**20
        if step == 1_200:
            place += 60 * 2**52
        values.append((place + 2**51) // 2**52)
    paths = made(event)
    assert [*paths.values["GS"]] == values
    salt = hmac.new(SECRET, b"A/all/1/salt", sha256).hexdigest()[:32]
    assert paths.salt == salt


# The file -----------------------------------------------------------------


def test_the_file_is_private_and_its_hash_is_the_commitment(
    event: Event, tmp_path: Path
) -> None:
    file = tmp_path / "A/all/fair.csv"
    commitment = made(event).write(file)
    assert sha256(file.read_bytes()).hexdigest() == commitment
    assert file.stat().st_mode & 0o777 == 0o600
    paths = read_paths(file)
    assert paths.text().encode() == file.read_bytes()
    assert paths.commitment == commitment == made(event).commitment


@pytest.mark.parametrize(
    "old, new",
    [
        ("# salt", "# sugar"),
        ("ms,BOND", "t,BOND"),
        ("100,1000", "200,1000"),
        ("\n100,", "\n100,1,"),
        ("\n100,1000", "\n100,x"),
    ],
)
def test_a_file_that_is_another_is_refused(
    event: Event, tmp_path: Path, old: str, new: str
) -> None:
    file = tmp_path / "fair.csv"
    made(event).write(file)
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(FairError, match="fair.csv: no file of hidden"):
        read_paths(file)


@pytest.mark.parametrize("text", ["", "# salt 12\n", "# salt \u20ac\n"])
def test_a_file_without_values_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "fair.csv"
    file.write_text(text, "utf-8")
    with pytest.raises(FairError):
        read_paths(file)
    file.write_text(f"# salt {'0' * 32}\nms,A\n")
    with pytest.raises(FairError, match="no values"):
        read_paths(file)


# Other chance -------------------------------------------------------------


def test_the_edge_of_a_tender_is_between_the_two(event: Event) -> None:
    [tender] = event.tenders
    edges = {
        edge_of(tender, 0, label_of("A", "all", n), SECRET) for n in range(300)
    }
    assert min(edges) >= 10 and max(edges) <= 30 and len(edges) > 15


def test_house_bots_have_a_seed_of_their_own() -> None:
    seeds = {
        house_seed(label, secret)
        for label in ("A/all/1", "A/all/2")
        for secret in (SECRET, bytes(32))
    }
    assert len(seeds) == 4
