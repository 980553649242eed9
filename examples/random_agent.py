"""Two policies in the Gymnasium environment: one at random, one that quotes.

Nothing is trained. ``python -m examples.random_agent`` plays five episodes
with each and prints the sum of their rewards, which is the profit in ticks
times lots.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from util.gym import QUOTE, TradingEnv

EPISODES = 5
SECONDS = 60.0


def main() -> None:
    """Print the profit of each policy in each episode."""
    env = TradingEnv(seconds=SECONDS)
    env.action_space.seed(1)
    try:
        for name, policy in (
            ("random", lambda observation: env.action_space.sample()),
            ("quotes", quote_against_position),
        ):
            profits = [play(env, policy, seed) for seed in range(EPISODES)]
            print(f"{name}: {profits}, mean {np.mean(profits):.1f}")
    finally:
        env.close()


def play(env: TradingEnv, policy: Callable[[Any], Any], seed: int) -> float:
    """Play one episode; return the sum of the rewards."""
    observation, _ = env.reset(seed=seed)
    profit, is_over = 0.0, False
    while not is_over:
        observation, reward, ended, is_cut, _ = env.step(policy(observation))
        profit += reward
        is_over = ended or is_cut
    return profit


def quote_against_position(observation: Any) -> Any:
    """Quote both sides; lower if the position is long, higher if short.

    Price 5 is the middle: the environment allows 5 ticks on each side.
    """
    position = int(observation["position"][0])
    price = 5 - max(-4, min(4, position // 4))
    return np.array([QUOTE, 0, 2, price, 1])


if __name__ == "__main__":
    main()
