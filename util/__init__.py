"""What a person runs: ``python -m util.<name>``, or ``exchange-<name>``."""
