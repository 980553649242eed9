"""Bad bots, and what they do to good ones."""
