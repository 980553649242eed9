"""What a person runs: ``python -m util.<name>``."""
