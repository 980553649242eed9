"""The Gymnasium environment, with Gymnasium's own checker."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from examples import random_agent
from test.support import ROOT
from util.gym import NOTHING, ORDER, QUOTE, WITHDRAW, TradingEnv

SELL, BUY = 1, 0
MIDDLE = 5  # of the prices of an action


@pytest.fixture
def env() -> Iterator[TradingEnv]:
    made = TradingEnv(seconds=20)
    yield made
    made.close()


def act(*numbers: int) -> Any:
    return np.array(numbers)


def test_gymnasium_s_checker() -> None:
    """It warns of what is wrong, and warnings are errors here."""
    env = gymnasium.make("Exchange-v0", seconds=5).unwrapped
    try:
        check_env(env)
    finally:
        env.close()


def test_an_episode_ends_and_can_be_played_again(env: TradingEnv) -> None:
    def episode(seed: int | None) -> list[Any]:
        env.action_space.seed(1)
        observation, info = env.reset(seed=seed)
        assert info == {"time": 2.0, "refused": ""}
        seen: list[Any] = []
        is_over = False
        while not is_over:
            action = env.action_space.sample()
            observation, reward, is_ended, is_over, info = env.step(action)
            assert observation in env.observation_space
            assert not is_ended
            seen.append((reward, observation["cash"][0], info["time"]))
        return seen

    first = episode(7)
    assert len(first) == 20
    assert first[-1][2] == 22.0
    assert episode(7) == first
    assert episode(None) != first


def test_orders_quotes_and_rewards(env: TradingEnv) -> None:
    before, _ = env.reset(seed=1)
    bid, ask = before["bids"][0], before["asks"][0]
    middle = (bid[0] + ask[0]) // 2
    far = ask[0] - middle + MIDDLE
    after, reward, *_ = env.step(act(ORDER, BUY, 2, far, 0))
    assert after["position"] == [3]
    assert after["cash"] == -3 * ask[0]
    assert reward < 0  # the mark is below the price that was paid
    assert [*after["trades"][0]][1:] == [3, 1] or after["trades"][1][1] == 3
    after, *_ = env.step(act(ORDER, SELL, 2, 0, 0))
    assert after["position"] == [0]
    after, *_ = env.step(act(QUOTE, 0, 6, MIDDLE, 0))
    assert after["asks"][0][0] - after["bids"][0][0] <= 2
    stayed, *_ = env.step(act(NOTHING, 0, 0, 0, 0))
    assert stayed["asks"][0][0] - stayed["bids"][0][0] <= 3
    after, *_ = env.step(act(WITHDRAW, 0, 0, 0, 0))
    assert after["asks"][0][0] - after["bids"][0][0] > 2


def test_a_refusal_is_told(tmp_path: Path) -> None:
    market = tmp_path / "market.toml"
    market.write_text(
        "[instruments.BOND]\nreference_price = 100\n"
        "[accounts.agent]\nmax_position = {BOND = 2}\n"
    )
    env = TradingEnv(market=market, makers=0, noise=0, informed=0)
    try:
        observation, _ = env.reset(seed=1)
        assert not observation["bids"].any()
        *_, info = env.step(act(QUOTE, 0, 2, MIDDLE, 0))
        assert info["refused"] == "position_limit"
        observation, *_, info = env.step(act(QUOTE, 0, 1, MIDDLE, 3))
        assert info["refused"] == ""
        assert [*observation["bids"][0]] == [96, 2]
        assert [*observation["asks"][0]] == [104, 2]
    finally:
        env.close()


def test_a_step_before_the_first_reset(env: TradingEnv) -> None:
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(act(NOTHING, 0, 0, 0, 0))


def test_without_gymnasium(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        runpy.run_path(str(ROOT / "util" / "gym.py"))
    assert str(caught.value) == (
        "util.gym needs gymnasium, which is not installed;"
        " run: pip install gymnasium"
    )


def test_the_example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(random_agent, "EPISODES", 1)
    monkeypatch.setattr(random_agent, "SECONDS", 20.0)
    random_agent.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["random", "quotes"]
