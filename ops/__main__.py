"""`python -m ops`: the command where no script is installed."""

from ops.cli import main

main()
