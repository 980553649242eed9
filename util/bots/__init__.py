"""House bots: traders of the exchange itself, so that there is a market.

``python -m util.bots`` runs them. Each kind is one short module, written to
be copied: ``maker`` quotes, ``derivative`` quotes around what a model says,
``noise`` trades for no reason, ``informed`` knows what the instrument is
worth, and ``arbitrage`` keeps it near its basket. A bot is a coroutine that
trades one instrument until it is canceled. It catches no error; ``house``
decides after each whether the bot tries again.
"""
