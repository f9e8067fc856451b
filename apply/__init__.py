"""Log -> target. The pipeline's second half: see `apply/loop.py`."""
