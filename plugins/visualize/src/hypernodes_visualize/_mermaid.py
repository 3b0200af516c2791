"""A diagram as a Mermaid flowchart."""

from __future__ import annotations

from hypernodes.plugin import Diagram, DiagramCluster, DiagramNode
from hypernodes_visualize._boxes import cluster_words, node_words
from hypernodes_visualize._layout import labelled
from hypernodes_visualize._text import plain

__all__ = ["mermaid_of"]


def mermaid_of(diagram: Diagram, orient: str) -> str:
    """The flowchart. Names, types and labels of users stand in it as entity codes wherever they could be markup."""
    inside: dict[str, list[DiagramNode]] = {}
    for node in diagram.nodes:
        inside.setdefault(node.cluster, []).append(node)
    children: dict[str, list[DiagramCluster]] = {}
    for cluster in diagram.clusters:
        children.setdefault(cluster.parent, []).append(cluster)
    lines = [f"flowchart {orient}"]
    todo: list[DiagramCluster | int] = list(reversed(children.get("", [])))
    depth = 0
    while todo:
        following = todo.pop()
        if isinstance(following, int):
            depth = following
            lines.append(f"{'  ' * min(depth + 1, 20)}end")
            continue
        cluster, indent = following, "  " * min(depth + 1, 20)
        title = " · ".join(words.text for words in cluster_words(cluster))
        lines.append(f'{indent}subgraph {cluster.id}["{_escaped(title)}"]')
        lines += [f"{indent}  {_node(node)}" for node in inside.get(cluster.id, [])]
        todo.append(depth)
        todo += reversed(children.get(cluster.id, []))
        depth += 1
    inputs = {node.id for node in diagram.nodes if node.kind == "input"}
    for edge in diagram.edges:
        text = labelled(edge, inputs)
        arrow = ("==>" if edge.mapped else "-->") + (f'|"{_escaped(text)}"|' if text else "")
        lines.append(f"  {edge.source} {arrow} {edge.target}")
    return "\n".join([*lines, ""])


def _node(node: DiagramNode) -> str:
    text = "<br/>".join(_escaped(words.text) for words in node_words(node))
    before, after = {"input": ("([", "])"), "nested": ("[[", "]]"), "resource": ("[(", ")]")}.get(node.kind, ("[", "]"))
    return f'{node.id}{before}"{text}"{after}'


def _escaped(text: str) -> str:
    """As Mermaid wants it: `#60;` for `<`. Letters, digits and what stands in plain types stay as they are."""
    return "".join(char if char.isalnum() or char in " _.,:()[]=→·…-" else f"#{ord(char)};" for char in plain(text))
