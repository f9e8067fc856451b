"""Measurements: each beside a peer or a limit, in the same run, on the same rows and servers.

Not packaged, and not a test: nothing here fails for being slow. `python -m bench` runs them.
"""
