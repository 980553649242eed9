"""The whole state at one command, so that a start need not replay all.

A snapshot is lines of text. The same commands make the same lines, whoever
applied them, was online or looked at the state meanwhile: two processes
compare their states by a digest of the lines.
"""
