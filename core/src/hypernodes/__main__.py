"""`python -m hypernodes`: the command line, without the current directory that Python puts on the path."""

from __future__ import annotations

import os
import sys

from hypernodes._cli import main

if __name__ == "__main__":
    if not sys.flags.safe_path and sys.path[:1] in ([""], [os.getcwd()]):
        del sys.path[0]  # as the `hypernodes` script: only --app-dir adds a directory
    sys.exit(main())
