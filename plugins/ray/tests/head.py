"""A Ray cluster for tests, in a process of its own: `python head.py CPUS`.

It is no child of the tests: what Ray starts and ends in there is none of their processes. It ends when its standard
input does, and so with the tests, however they end. Commands come as lines, answers go as lines of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

OPTIONS = {"object_store_memory": 200_000_000, "include_log_monitor": False, "no_monitor": True}
TRIES = 4


def free_ports(*names: str) -> dict[str, int]:
    found = {}
    with contextlib.ExitStack() as held:
        for name in names:
            one = held.enter_context(socket.socket())
            one.bind(("127.0.0.1", 0))
            found[name] = one.getsockname()[1]
    return found


@contextlib.contextmanager
def without_agent(node: str, folder: str) -> Iterator[None]:
    """Say in place of a node's dashboard agent that it listens nowhere, as it does where no dashboard is installed.

    Ray gives it 15 s to say so, and a machine that is busy with other tests takes longer to start it.
    """
    over = threading.Event()

    def say() -> None:
        while not over.wait(0.02):
            for session in Path(folder, "ray").glob("session_2*"):
                for name in ("dashboard_agent_listen_port", "metrics_agent_port", "metrics_export_port"):
                    file = session / f"{name}_{node}"
                    with contextlib.suppress(OSError):  # the session is just being made
                        if not file.exists():
                            file.write_text("-1")

    thread = threading.Thread(target=say)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def added(cluster: Any, **options: Any) -> Any:
    """A node more, with ports that nobody has to wait for either."""
    ports = free_ports("metrics_agent_port", "metrics_export_port", "runtime_env_agent_port")
    node = secrets.token_hex(28)
    with without_agent(node, os.environ["RAY_TMPDIR"]):
        return cluster.add_node(**OPTIONS, **ports, **options, env_vars={"RAY_OVERRIDE_NODE_ID_FOR_TESTING": node})


def patiently(start: Callable[[], Any]) -> Any:
    """Start a node, and again where the machine was too busy for the half minute that Ray gives it."""
    for _ in range(TRIES - 1):
        try:
            return start()
        except Exception as error:
            print(error, file=sys.stderr)
            time.sleep(1)
    return start()


def main() -> None:
    cpus = int(sys.argv[1])
    if os.fork():
        os._exit(0)
    os.setsid()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    import ray
    from ray.cluster_utils import Cluster

    ray.__version__ = os.environ.get("CLAIMED_RAY", ray.__version__)
    client = free_ports("client")["client"]
    head = {"include_dashboard": False, "num_cpus": cpus, "ray_client_server_port": client}
    cluster: Any = Cluster(shutdown_at_exit=True)
    patiently(lambda: added(cluster, **head))
    more: list[Any] = []

    def answer(told: Any) -> None:
        answers.write(json.dumps(told) + "\n")
        answers.flush()

    answer({"address": cluster.address, "client": client, "pid": os.getpid()})
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "add":
            sizes = {"num_cpus": command["cpus"], "num_gpus": command.get("gpus", 0)}
            more.append(patiently(lambda: added(cluster, **sizes)))  # noqa: B023
            answer({"node": more[-1].node_id})
        elif command["do"] == "kill":
            cluster.remove_node(more.pop(), allow_graceful=False)
            answer({})
    cluster.shutdown()
    answer({})


if __name__ == "__main__":
    main()
