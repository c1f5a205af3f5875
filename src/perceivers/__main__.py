"""`python -m perceivers` is the command `perceivers`."""

import sys

from perceivers.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
