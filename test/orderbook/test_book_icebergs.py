"""Icebergs: orders of which the book shows a part.

``1x5+15`` is order 1 with 5 lots shown and 15 hidden.
"""

from __future__ import annotations

import pytest

from test.script import play_book


def test_the_book_shows_the_part_and_trades_the_whole() -> None:
    play_book("""
        ann sell 20@100 display=5 -> rests 20
        depth                     -> | 100=5
        bob buy 20@100            -> 5@100 with 1, 5@100 with 1, \
5@100 with 1, 5@100 with 1, filled
        depth                     -> |
        """)


def test_what_is_left_may_be_less_than_the_part() -> None:
    play_book("""
        ann buy 7@100 display=5 -> rests 7
        bob sell 5@100          -> 5@100 with 1, filled
        bids                    -> 100: 1x2
        ann buy 3@99 display=9  -> rests 3
        depth                   -> 100=2 99=3 |
        """)


def test_the_next_part_goes_to_the_tail_of_its_level() -> None:
    play_book("""
        ann sell 9@100 display=3 -> rests 9
        bob sell 5@100           -> rests 5
        cat buy 3@100            -> 3@100 with 1, filled
        asks                     -> 100: 2x5 1x3+3
        cat buy 2@100            -> 2@100 with 2, filled
        asks                     -> 100: 2x3 1x3+3
        """)


def test_a_part_that_is_not_gone_keeps_its_place() -> None:
    play_book("""
        ann sell 9@100 display=3 -> rests 9
        bob sell 5@100           -> rests 5
        cat buy 2@100            -> 2@100 with 1, filled
        asks                     -> 100: 1x1+6 2x5
        """)


def test_a_sweep_takes_all_that_is_shown_before_what_is_hidden() -> None:
    """In time order, and then the next parts in the same order."""
    play_book("""
        ann sell 9@100 display=3 -> rests 9
        bob sell 5@100           -> rests 5
        cat sell 6@100 display=2 -> rests 6
        dan sell 1@101           -> rests 1
        eve buy 16@101           -> 3@100 with 1, 5@100 with 2, \
2@100 with 3, 3@100 with 1, 2@100 with 3, 1@100 with 1, filled
        asks                     -> 100: 1x2 3x2 / 101: 4x1
        """)


def test_a_sweep_takes_a_level_whole_before_the_next() -> None:
    play_book("""
        ann buy 6@100 display=2 -> rests 6
        bob buy 5@99            -> rests 5
        cat sell 7@99           -> 2@100 with 1, 2@100 with 1, \
2@100 with 1, 1@99 with 2, filled
        """)


def test_an_order_that_arrives_takes_before_it_rests_as_an_iceberg() -> None:
    play_book("""
        ann sell 4@100           -> rests 4
        bob buy 10@100 display=2 -> 4@100 with 1, rests 6
        bids                     -> 100: 2x2+4
        """)


@pytest.mark.parametrize(
    "wanted, end",
    [
        (
            20,
            "5@100 with 1, 3@100 with 2, 5@100 with 1, 5@100 with 1, "
            "2@100 with 1, filled",
        ),
        (
            23,
            "5@100 with 1, 3@100 with 2, 5@100 with 1, 5@100 with 1, "
            "5@100 with 1, filled",
        ),
        (24, "expired fok"),
    ],
)
def test_fok_counts_the_whole(wanted: int, end: str) -> None:
    play_book(f"""
        ann sell 20@100 display=5 -> rests 20
        bob sell 3@100            -> rests 3
        cat buy {wanted}@100 fok  -> {end}
        """)


def test_fok_stops_at_an_own_order_before_what_is_hidden() -> None:
    """Cat's own order stands in front of ann's next part."""
    play_book("""
        ann sell 20@100 display=5        -> rests 20
        cat sell 3@100                   -> rests 3
        cat buy 6@100 fok cancel_newest  -> expired fok
        cat buy 5@100 fok cancel_newest  -> 5@100 with 1, filled
        cat buy 6@100 fok                -> 2 canceled, 5@100 with 1, \
1@100 with 1, filled
        """)


def test_an_own_iceberg_is_canceled_whole() -> None:
    play_book("""
        ann sell 20@100 display=5 -> rests 20
        bob sell 3@100            -> rests 3
        ann buy 3@100             -> 1 canceled, 3@100 with 2, filled
        depth                     -> |
        """)


def test_a_cancel_takes_the_hidden_part_as_well() -> None:
    play_book("""
        ann sell 20@100 display=5 -> rests 20
        bob sell 3@100            -> rests 3
        ann cancel 1              -> canceled user
        asks                      -> 100: 2x3
        """)


# Amending -----------------------------------------------------------------


def test_a_lower_total_takes_from_what_is_hidden_and_keeps_the_place() -> None:
    play_book("""
        ann sell 20@100 display=5 -> rests 20
        bob sell 3@100            -> rests 3
        ann amend 1 qty=6         -> rests 6
        asks                      -> 100: 1x5+1 2x3
        ann amend 1 qty=4         -> rests 4
        asks                      -> 100: 1x4 2x3
        cat buy 1@100             -> 1@100 with 1, filled
        ann amend 1 qty=3         -> rests 2
        asks                      -> 100: 1x2 2x3
        ann amend 1 qty=1         -> canceled user
        """)


def test_what_changes_in_hiding_leaves_no_trace() -> None:
    book = play_book("""
        ann sell 20@100 display=5 -> rests 20
        changes                   -> | 100=5
        """)
    before = book.version
    play_book(
        """
        ann amend 1 qty=15 -> rests 15
        changes            -> |
        """,
        book,
    )
    assert book.version == before


def test_a_higher_total_or_another_price_loses_the_place() -> None:
    play_book("""
        ann sell 20@100 display=5 -> rests 20
        bob sell 3@100            -> rests 3
        cat buy 2@100             -> 2@100 with 1, filled
        ann amend 1 qty=21        -> rests 19
        asks                      -> 100: 2x3 1x5+14
        ann amend 1 price=99      -> rests 19
        asks                      -> 99: 1x5+14 / 100: 2x3
        """)


def test_to_show_more_loses_the_place_and_to_show_less_keeps_it() -> None:
    play_book("""
        ann sell 20@100 display=5 -> rests 20
        bob sell 3@100            -> rests 3
        ann amend 1 display=2     -> rests 20
        asks                      -> 100: 1x2+18 2x3
        ann amend 1 display=3     -> rests 20
        asks                      -> 100: 2x3 1x3+17
        bob amend 2 display=1     -> rests 3
        asks                      -> 100: 2x1+2 1x3+17
        depth                     -> | 100=4
        """)


def test_to_show_less_does_not_show_more_of_a_part_that_is_nearly_gone() -> (
    None
):
    play_book("""
        ann sell 20@100 display=5 -> rests 20
        cat buy 4@100             -> 4@100 with 1, filled
        ann amend 1 display=3     -> rests 16
        asks                      -> 100: 1x1+15
        """)


# Auctions -----------------------------------------------------------------


def test_an_uncrossing_trades_the_whole_at_its_place() -> None:
    play_book("""
        collect                   ->
        ann sell 20@100 display=5 -> rests 20
        bob sell 10@100           -> rests 10
        cat buy 18@100            -> rests 18
        depth                     -> 100=18 | 100=15
        uncross 100               -> 3 buys 18 of 1
        asks                      -> 100: 1x2 2x10
        """)


def test_after_an_uncrossing_it_shows_its_part_at_its_place() -> None:
    play_book("""
        ann sell 20@100 display=5 -> rests 20
        bob sell 10@100           -> rests 10
        cat buy 3@100             -> 3@100 with 1, filled
        asks                      -> 100: 1x2+15 2x10
        collect                   ->
        cat buy 4@100             -> rests 4
        uncross 100               -> 4 buys 4 of 1
        asks                      -> 100: 1x5+8 2x10
        """)


def test_an_amend_whose_only_public_effect_would_be_none_is_not_told() -> None:
    """It comes anew, shows as much, and cancels an own market order."""
    book = play_book("""
        collect ->
        ann sell 3@100 display=1 -> rests 3
        ann buy 5@market auction stp=none -> rests 5
    """)
    version = book.version
    play_book("ann amend 1 qty=1 display=2 -> 2 canceled, rests 1", book)
    assert book.version == version


def test_a_change_of_hidden_lots_is_in_no_later_update() -> None:
    """Nobody sees from the next update that somebody amended an iceberg."""
    play_book("""
        ann sell 9@100 display=3 -> rests 9
        bob sell 1@101           -> rests 1
        changes                  -> | 100=3 101=1
        ann amend 1 qty=12       -> rests 12
        bob amend 2 qty=2        -> rests 2
        changes                  -> | 101=2
        """)
