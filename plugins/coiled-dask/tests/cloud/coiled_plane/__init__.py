"""A Coiled control plane on the loopback, for tests: the real `coiled.Cluster` runs against it.

It answers what the client asks, starts a real scheduler and real workers on this machine over mutual TLS, and ends
them. It knows nothing of quotas, prices, networks and images. What the client asked is kept, so that tests can look.
"""

from coiled_plane.certificate import Certificate
from coiled_plane.clusters import PlaneCluster
from coiled_plane.requests import Request
from coiled_plane.server import TOKEN, WORKSPACE, ControlPlane

__all__ = ["TOKEN", "WORKSPACE", "Certificate", "ControlPlane", "PlaneCluster", "Request"]
