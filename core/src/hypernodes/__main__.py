"""`python -m hypernodes`: the command line, without the current directory that Python puts on the path.

Python itself has searched that directory by the time this runs; where files there are not to be trusted, use the
`hypernodes` script, or `python -P -m hypernodes`.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    if not sys.flags.safe_path and sys.path[:1] in ([""], [os.getcwd()]):
        del sys.path[0]  # as the `hypernodes` script: only --app-dir adds a directory
    from hypernodes._cli import main

    sys.exit(main())
