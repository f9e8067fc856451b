"""Source -> log. The pipeline's first half: see `capture/loop.py`."""
