"""Recorded journals, served as they were told to live readers.

``python -m util.replay --serve FILE`` starts it. A `Recording` finds any
moment of a journal, a `View` is the market of one viewer at its moment, a
`Viewer` moves it through time, and a `Playback` serves them.
"""
