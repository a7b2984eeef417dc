"""``python -m perdure_cli``: the command where no script is on the path."""

from perdure_cli.main import main

main()
