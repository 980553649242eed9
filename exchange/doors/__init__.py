"""Bytes to requests, and events to bytes."""
