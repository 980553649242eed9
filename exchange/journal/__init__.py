"""The commands on disk or on a stream, and the state and history from them."""
