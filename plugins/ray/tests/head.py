"""A Ray cluster for tests, in a process of its own: `python head.py CPUS`.

It is no child of the tests: what Ray starts and ends in there is none of their processes. It ends when its standard
input does, and so with the tests, however they end. Commands come as lines, answers go as lines of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Callable
from typing import Any


OPTIONS = {"object_store_memory": 200_000_000, "include_log_monitor": False, "no_monitor": True}
TRIES = 4


def agent_ports() -> dict[str, int]:
    """Ports for a node's helpers. Where they pick their own, Ray waits 15 s for them, and a busy machine takes longer."""
    names = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
    found = {}
    with contextlib.ExitStack() as held:
        for name in names:
            one = held.enter_context(socket.socket())
            one.bind(("127.0.0.1", 0))
            found[name] = one.getsockname()[1]
    return found


def patiently(start: Callable[[], Any]) -> Any:
    """Start a node, and again where the machine was too busy for the half minute that Ray gives it."""
    for _ in range(TRIES - 1):
        try:
            return start()
        except Exception as error:
            print(error, file=sys.stderr)
    return start()


def main() -> None:
    cpus = int(sys.argv[1])
    if os.fork():
        os._exit(0)
    os.setsid()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    from ray.cluster_utils import Cluster

    options = {**OPTIONS, "include_dashboard": False, "num_cpus": cpus}
    cluster: Any = Cluster(shutdown_at_exit=True)
    patiently(lambda: cluster.add_node(**options, **agent_ports()))
    added: list[Any] = []

    def answer(told: Any) -> None:
        answers.write(json.dumps(told) + "\n")
        answers.flush()

    answer({"address": cluster.address, "pid": os.getpid()})
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "add":
            sizes = {"num_cpus": command["cpus"], "num_gpus": command.get("gpus", 0)}
            added.append(patiently(lambda: cluster.add_node(**OPTIONS, **agent_ports(), **sizes)))  # noqa: B023
            answer({"node": added[-1].node_id})
        elif command["do"] == "kill":
            cluster.remove_node(added.pop(), allow_graceful=False)
            answer({})
    cluster.shutdown()
    answer({})


if __name__ == "__main__":
    main()
