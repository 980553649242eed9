"""The machine and its settings: clock, disk looks, output, keys, figures."""
