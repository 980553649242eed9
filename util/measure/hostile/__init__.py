"""Bad bots, and their effect on good ones."""
