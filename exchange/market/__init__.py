"""A command in, events out: pure state, no clock, socket or disk."""
