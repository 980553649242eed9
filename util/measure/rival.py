"""The servers that `util.measure.bench` compares with: no exchange in them.

Each frame is sent back as it came, as the stock echo server of the websockets
library does. Where clients have subscribed, each frame also writes a fixed
update of a book to all of them.
"""

from __future__ import annotations

import asyncio
import contextlib

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError

UPDATE = b"\x81\x7e\x00\x68" + b'"type":"book"'.ljust(104, b"x")


async def main() -> None:
    """Serve on a free port of the loopback until killed."""
    readers: list[asyncio.Transport] = []

    async def answer(connection: ServerConnection) -> None:
        # A measurement ends without a closing handshake.
        with contextlib.suppress(ConnectionClosedError):
            async for message in connection:
                if "subscribe" in message:
                    readers.append(connection.transport)
                    connection.transport.write(UPDATE)
                    continue
                for transport in readers:
                    transport.write(UPDATE)
                await connection.send(message)

    async with serve(answer, "127.0.0.1", 0, compression=None) as server:
        port = server.sockets[0].getsockname()[1]
        print(f"Rival on ws://127.0.0.1:{port}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
