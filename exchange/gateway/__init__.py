"""Who asks, and who is told; no sockets."""
