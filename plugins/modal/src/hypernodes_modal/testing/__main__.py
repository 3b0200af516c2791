"""`python -m hypernodes_modal.testing`: a control plane until Ctrl-C, and what to export so that programs use it."""

from __future__ import annotations

import argparse
import shlex
import signal
import threading

from hypernodes_modal.testing._plane import LocalModal


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hypernodes_modal.testing", description=__doc__)
    parser.add_argument("--capacity", type=int, default=4, help="containers at once (4)")
    parser.add_argument("--input-plane", action="store_true", help="call functions through the input plane")
    arguments = parser.parse_args()
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    with LocalModal(capacity=arguments.capacity, input_plane=arguments.input_plane) as local:
        for name, value in local.environ.items():
            print(f"export {name}={shlex.quote(value)}")
        print("# LocalModal runs until Ctrl-C: paste these lines into another terminal", flush=True)
        over.wait()


if __name__ == "__main__":
    main()
