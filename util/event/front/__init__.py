"""The front of an event: one address for the teams of all its matches.

A process of its own that copies bytes. The director tells it by a file who
plays where: see `table`.
"""
