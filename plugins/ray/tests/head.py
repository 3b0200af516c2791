"""A Ray cluster for tests, in a process of its own: `python head.py CPUS TEMP_DIR`.

It is no child of the tests: what Ray starts and ends in there is none of their processes. It ends when its standard
input does, and so with the tests, however they end. Commands come as lines, answers go as lines of JSON.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def main() -> None:
    cpus, folder = int(sys.argv[1]), sys.argv[2]
    if os.fork():
        os._exit(0)
    os.setsid()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    from ray.cluster_utils import Cluster

    options = {"include_dashboard": False, "object_store_memory": 200_000_000}
    cluster: Any = Cluster(
        initialize_head=True, head_node_args={**options, "num_cpus": cpus, "_temp_dir": folder}, shutdown_at_exit=True
    )
    added: list[Any] = []

    def answer(told: Any) -> None:
        answers.write(json.dumps(told) + "\n")
        answers.flush()

    answer({"address": cluster.address, "pid": os.getpid()})
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "add":
            node = cluster.add_node(
                num_cpus=command["cpus"], num_gpus=command.get("gpus", 0), object_store_memory=200_000_000
            )
            added.append(node)
            answer({"node": node.node_id})
        elif command["do"] == "kill":
            cluster.remove_node(added.pop(), allow_graceful=False)
            answer({})
    cluster.shutdown()
    answer({})


if __name__ == "__main__":
    main()
