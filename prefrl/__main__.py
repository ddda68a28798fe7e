"""`python -m prefrl` is the `prefrl` command."""

import sys

from prefrl.start import main

if __name__ == "__main__":
    sys.exit(main())
