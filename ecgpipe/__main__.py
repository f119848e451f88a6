"""The entry point of the command ``ecgpipe`` and of ``python -m ecgpipe``."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C ends it quietly while it is still being imported, too."""
    try:
        from .cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
