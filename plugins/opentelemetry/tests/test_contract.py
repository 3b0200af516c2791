"""The manifest keeps every promise of a manifest."""

from __future__ import annotations

import subprocess
import sys

import pytest

import hypernodes
from hypernodes.testing import ManifestContract


class TestManifest(ManifestContract):
    @pytest.fixture
    def entry_point(self) -> str:
        return "opentelemetry"


def test_hypernodes_exports_the_callback() -> None:
    from hypernodes_opentelemetry import TelemetryCallback

    assert hypernodes.TelemetryCallback is TelemetryCallback


def test_the_manifest_leaves_opentelemetry_unloaded_until_there_is_a_span_to_carry() -> None:
    code = (
        "import sys\n"
        "from hypernodes_opentelemetry import _plugin\n"
        "carrier = {}\n"
        "_plugin.inject(carrier)\n"
        "assert _plugin.extract(carrier) is None and carrier == {}\n"
        "print(*(name for name in sys.modules if name.split('.')[0] == 'opentelemetry'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == ""
