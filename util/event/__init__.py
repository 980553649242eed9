"""An event: teams, rounds, hidden values, scores: `python -m util.event`.

One file describes an event (`file`). The director plays it (`run`). Scores,
standings and dossiers are made from journals only, so they can be made
again at any time (`score`, `dossier`).
"""
