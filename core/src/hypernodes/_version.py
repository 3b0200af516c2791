"""The version of this package; `tests/test_workspace.py` compares it with the metadata."""

__version__ = "0.5.0"
