"""A whole exchange with its clients in one process, in virtual time.

``python -m util.simulate`` runs it; `Simulation` is the same for programs and
notebooks. Server, ``client.py``, house bots and the bots of users are those of
a live exchange. Only the loop, the network, the clock, the sources of chance
and the journal's disk are ours:

``loop``        an event loop whose clock jumps to the next timer
``latency``     the time of a message
``network``     connections in memory
``transport``   one end of a connection
``connection``  a client's websocket on that network
``exchange``    the exchange on that loop and network
``journal``     its journal in memory
``modules``     what a bot imports as ``time``, ``random`` and so on
``guard``       what a bot may not do
``bots``        one bot: its file, its thread, its end
``recording``   recorded orders: a journal, or a file of trades
``flow``        the accounts that send them again
``world``       all of it, step by step: `Simulation`
``result``      who won; the digest
``rounds``      many rounds, over all processors

``python -m util.simulate.worlds`` tests the exchange itself. Its parts:

``disk``        a disk that is slow, full or broken
``machine``     the processes of an exchange, which can be killed
``faults``      what fails, and when
``trader``      a trader that keeps what it is told
``truth``       what has happened, by the journal
``witness``     what was told, against the truth
``faulty``      a world of all these
``worlds``      many worlds, over all processors
"""

from .world import Simulation

__all__ = ["Simulation"]
