"""The values, classes and exceptions that random cases are made of, as text."""

from __future__ import annotations

import importlib.util

__all__ = ["ERRORS", "IMPORTS", "PRELUDE", "VALUES"]

IMPORTS = {
    "asyncio.": "import asyncio",
    "dataclass": "from dataclasses import dataclass",
    "Enum": "from enum import Enum",
    "np.": "import numpy as np",
}
"""The import line that a text needs, by a word it holds."""

PRELUDE = {
    "Point": "@dataclass\nclass Point:\n    x: int\n    y: object = None\n",
    "Colour": 'class Colour(Enum):\n    RED = 1\n    BLUE = "blue"\n',
    "Broken": "class Broken(Exception):\n    pass\n",
    "Coded": (
        "class Coded(Exception):\n    def __init__(self, code, detail):\n"
        '        super().__init__(f"{code}: {detail}")\n        self.code = code\n'
    ),
}
"""Class definitions by name. `Coded` cannot be rebuilt from its `args`, as many exceptions in the wild cannot."""

_ARRAYS = ["np.array([1.5, float('nan')])", "np.arange(6, dtype='int16').reshape(2, 3)"]
_WITHOUT_ARRAYS = ["(1.5, float('nan'))", "[0, 1, 2]"]

VALUES = {
    "integer over 64 bit": ["2**70 + 3", "-(2**64)"],
    "bool": ["True", "False"],
    "None": ["None"],
    "NaN": ["float('nan')"],
    "negative zero": ["-0.0"],
    "str": ["''", "'naïve\\n\\x00'"],
    "bytes": ["b''", "b'\\x00\\xff'"],
    "tuple": ["()", "(1, 'a', None)"],
    "list value": ["[1, [2.5, ()]]"],
    "dict with mixed keys": ["{'k': 1, 2: 'two', None: (3,), (4, 5): b'6'}"],
    "set": ["{1, 'one', (1,)}", "frozenset({2})"],
    "dataclass": ["Point(1, -2)", "Point(3, Point(4))"],
    "enum": ["Colour.RED", "Colour.BLUE"],
    "array": _ARRAYS if importlib.util.find_spec("numpy") else _WITHOUT_ARRAYS,
    "exception as a value": ["ValueError('kept', 1)", "Broken('kept')", "KeyError('k')"],
}
"""Expressions by the feature they stand for."""

ERRORS = {
    "built-in exception": ["ValueError({0})", "KeyError({0})", "OSError(2, {0})", "ZeroDivisionError()"],
    "StopIteration": ["StopIteration({0})"],
    "own exception": ["Broken({0}, 7)"],
    "exception that cannot be rebuilt": ["Coded(404, {0})"],
}
"""Exceptions to raise by the feature they stand for; `{0}` is replaced by an expression of a text."""
