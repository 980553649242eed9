"""The doors of a trading challenge: lines of JSON or of text over TCP."""
