"""People: the command line, configuration, supervision, preflight, status, verify, demo."""
