"""Where the command line begins, also as `python -m pcsim`: Ctrl-C while it loads is an interrupt as any."""

from __future__ import annotations

import sys


def main() -> None:
    """Load the commands and run one."""
    try:
        from pcsim.cli import main as run

        run()
    except KeyboardInterrupt:  # before a command could say what it keeps
        sys.stderr.write("interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
