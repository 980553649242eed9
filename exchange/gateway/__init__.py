"""Carries out requests and routes events, without sockets."""
