"""What holds for every test."""

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from exchange.host.process import new_event_loop
from test.support import NO_KEYS
from util.measure.nats_servers import NatsServers, nats_servers

# A loaded machine fails no test: nothing that Hypothesis times counts.
settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("untimed")
# What the tests of a module need, by the most that one of them needs:
# nothing but this process; sockets in it; programs that they start; whole
# systems of programs, whose tests take minutes: `make system` runs those.
KINDS = {
    "pure": """
        test_account_limits test_accounts test_appender test_architecture
        test_auction test_auction_orders test_band test_book_icebergs
        test_book_matching test_book_orders test_book_state test_book_twin
        test_bucket test_busts test_cash test_chart test_client_money
        test_client_notices test_client_silence test_client_simulated
        test_closing test_codec_events test_codec_frames test_codec_requests
        test_conformance_published test_conversion test_damage test_day
        test_deadlines test_documented test_door_settings test_edge
        test_event_changes test_event_dossier test_event_draws
        test_event_examples test_event_fair test_event_file test_event_keys
        test_event_lines test_event_market test_event_pages test_event_pairings
        test_event_record test_event_schedule test_event_scoring
        test_event_standings test_executions test_expiry test_feed
        test_feed_readers test_fees test_flows test_gate test_gateway test_gym
        test_history test_icebergs test_languages test_lease test_limits
        test_link test_listing test_logins test_market_data test_market_twin
        test_matches test_memory test_model test_money_file test_money_flows
        test_names test_news test_notices test_operator test_orders test_pacing
        test_payouts test_permissions test_phases test_precedence test_presets
        test_product_flows test_product_settings test_products
        test_products_documented test_ranking test_rate test_records
        test_replay_text test_reports test_requests test_restart test_rounds
        test_routing test_rules test_rules_time test_self_trades test_sequencer
        test_sessions test_settings test_settlement test_snapshot_state
        test_solvency test_spot_values test_stops test_tags test_tasks
        test_tenders test_uncrossing test_virtual test_work
    """,
    "socket": """
        test_access test_bounds test_channels test_client_view test_conformance
        test_connections test_event_front test_event_front_bounds
        test_fair_file test_flow test_frame test_life test_lines test_malformed
        test_metrics test_money_start test_playback test_replies test_resuming
        test_rules_disk test_rules_keys test_rules_limits test_rules_orders
        test_rules_refusals test_rules_rounds test_schema test_session
        test_slow_readers test_snapshot_start test_soak test_spot_api
        test_spot_http test_spot_keys test_spot_market test_spot_orders
        test_spot_streams test_tables test_tcp test_timing test_turns
        test_upgrade test_waiting test_web test_websocket
    """,
    "process": """
        check_ccxt check_ccxt_pro check_documented check_python_binance
        freqtrade_trades screen_tests test_abuse test_administration
        test_backup test_checksum test_cli test_client test_client_earlier
        test_client_life test_client_standby test_clock test_commits
        test_committer test_disk test_docs test_edges test_event_processes
        test_examples test_files test_fuzz test_golden test_image test_keys
        test_keys_live test_logs test_long_work test_page test_printing
        test_process test_products_live test_replay test_restore test_simulate
        test_snapshots test_speed test_spot_crash test_sqlite test_standby
        test_stream test_tls test_tutorial test_util_accounts test_util_admin
        test_watch
    """,
    "system": """
        test_bench test_bots test_challenge_house test_client_live
        test_cluster_crash test_crash test_deploy test_door_load
        test_doors_crash test_event_league test_event_page test_event_practice
        test_event_rehearse test_event_replay test_event_run test_firefox
        test_hostile test_package test_page_types test_partition test_proxies
        test_replay_page
        test_screen test_screen_large test_screen_sizes test_stress test_wall
        test_windows
        test_worlds
    """,
}
KIND_OF = {
    module: kind for kind, names in KINDS.items() for module in names.split()
}
# Random flows that would be pure, but take seconds each. One of them runs
# once more in a process of its own.
LONG = set("""
    test_a_bit_that_flips_anywhere_in_the_file_is_noticed_or_harmless
    test_a_long_flow_leaves_nothing_out
    test_a_long_random_day_against_the_naive_market
    test_a_long_random_flow_against_the_twin
    test_an_element_is_judged_as_a_frame_of_its_own
    test_book_and_engine_report_what_is_published
    test_the_tool_fails_if_a_workload_differs
    test_an_exec_is_encoded_as_pydantic_does
    test_the_events_suffice_to_rebuild_the_market
    test_the_events_of_a_long_day_suffice
    test_every_command_survives
    test_every_reader_ends_up_with_the_books
    test_lots_and_cash_are_conserved
    test_a_long_flow_amid_long_work
    test_they_are_conserved_amid_long_work
    test_no_bit_of_a_row_can_change
    test_no_damaged_frame_raises_anything
    test_no_json_raises_anything
    test_the_book_does_what_its_twin_does
    test_the_same_commands_give_the_same_bytes
    test_twice_the_rate_of_any_kind_is_never_cut_off
    test_whatever_is_asked_each_request_has_its_reply
    """.split())


def pytest_ignore_collect(
    collection_path: Path, config: pytest.Config
) -> bool | None:
    """Import no other modules where only the pure ones are wanted."""
    if config.option.markexpr != "pure" or collection_path.suffix != ".py":
        return None
    return KIND_OF.get(collection_path.stem, "pure") != "pure" or None


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Mark each test with the kind of its module, or as a long one."""
    for item in items:
        module = Path(item.path).stem
        if module not in KIND_OF:
            raise pytest.UsageError(f"test/conftest.py: no kind of {module}")
        is_long = item.originalname in LONG
        item.add_marker("long" if is_long else KIND_OF[module])


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of whoever runs the tests out of them."""
    for name in list(os.environ):
        if name.startswith("EXCHANGE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("EXCHANGE_SERVER_JOURNAL", "off")
    monkeypatch.setenv("EXCHANGE_SERVER_KEYS", NO_KEYS)


@pytest.fixture(scope="session")
def nats() -> Iterator[NatsServers]:
    """Three servers of NATS, for all tests of this process."""
    with nats_servers() as servers:
        yield servers


def pytest_asyncio_loop_factories(
    item: pytest.Function,
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run servers in the loop that they get from ``python server.py``.

    What a connection does is tested in both loops. Only the clock of asyncio
    can be set forward, and clients and tools run in asyncio's loop.
    """
    loops = {"asyncio": asyncio.new_event_loop, "uvloop": new_event_loop}
    room = Path(item.path).parent.name
    if "clock" in item.fixturenames or room in ("client", "util"):
        del loops["uvloop"]
    elif room != "connection":
        del loops["asyncio"]
    return loops
