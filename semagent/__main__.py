"""``python -m semagent``."""

import sys

from semagent.cli import main

if __name__ == "__main__":
    sys.exit(main())
