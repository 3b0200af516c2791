"""The identity of a function changes with what it does and with nothing else, in every process alike."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hypernodes
from hypernodes import node
from hypernodes._code import Code, code_of
from hypernodes._digest import digest_of
from hypernodes._errors import UnkeyableError

CORE = Path(hypernodes.__file__).resolve().parent.parent
PLUGGY = Path(str(pytest.importorskip("cloudpickle").__file__)).parent.parent

WORK = '''
"""What the function is for."""
import json
import math
from dataclasses import dataclass

import helpers
from helpers import normalise, scaled as rescaled

LIMIT = 3
WORDS = ["a", "b"]
RULES = {"strip": str.strip, "own": normalise}


@dataclass
class Doc:
    text: str
    size: int = 1

    def words(self):
        return self.text.split()

    @property
    def upper(self):
        return self.text.upper()


def made(factor):
    def inner(x):
        return x * factor

    return inner


def logged(func):
    import functools

    @functools.wraps(func)
    def wrapper(*args, **kwargs):
        return func(*args, **kwargs)

    return wrapper


twice = made(2)


@logged
def polish(text):
    return text.rstrip(".")


def work(text, k=2, *, key="x"):
    """Do the work."""
    # a comment
    import late

    found = [normalise(word) for word in Doc(text).words() if len(word) > LIMIT]
    for rule in RULES.values():
        found.append(rule(text))

    def inner(a):
        return a + math.pi

    try:
        number = helpers.deeper(k) + twice(k) + inner(k) + rescaled(k)
    except ValueError:
        number = 0
    return found, number, polish(text), late.wanted(text), json.dumps(WORDS), key
'''

HELPERS = """
OFFSET = 1
unrelated = 5


def normalise(text):
    return text.strip().lower()


def scaled(x):
    return x * 10


def deeper(x):
    return deepest(x) + OFFSET


def deepest(x):
    return x - 1 if x < 5 else deeper(x - 1)


def never_used(x):
    return x
"""

LATE = """
def wanted(text):
    return len(text)

def other():
    return 1
"""


class Project:
    """A user's project of three modules, looked at by fresh interpreters."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = {"work.py": WORK, "helpers.py": HELPERS, "late.py": LATE}

    def edited(self, file: str, old: str, new: str) -> Project:
        assert old in self.files[file], old
        other = Project(self.path)
        other.files = {**self.files, file: self.files[file].replace(old, new)}
        return other

    def start(self, script: str, **env: str) -> Any:
        for name, text in self.files.items():
            (self.path / name).write_text(text, encoding="utf-8")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "HYPERNODES_", "COV"))}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
            cwd=self.path,
            env={
                **kept,
                "PYTHONPATH": os.pathsep.join(map(str, (self.path, CORE))),
                "PYTHONDONTWRITEBYTECODE": "1",
                **env,
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def code(self, **env: str) -> tuple[str, dict[str, str]]:
        digest, parts = self.start(
            """
            import json, work
            from hypernodes._code import code_of
            found = code_of(work.work)
            assert code_of(work.work) == found
            print(json.dumps([found.digest.hex(), found.parts]))
            """,
            **env,
        )
        return digest, parts


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


CHANGES = [
    ("work.py", "len(word) > LIMIT", "len(word) >= LIMIT", "function 'work'"),
    ("work.py", "number = 0", "number = 1", "function 'work'"),
    ("work.py", "a + math.pi", "a - math.pi", "function 'work'"),
    ("work.py", "except ValueError", "except KeyError", "function 'work'"),
    ("work.py", 'key="x"', 'key="y"', "default 'key'"),
    ("work.py", "k=2", "k=2.0", "default 'k'"),
    ("work.py", "LIMIT = 3", "LIMIT = 4", "global 'LIMIT'"),
    ("work.py", 'WORDS = ["a", "b"]', 'WORDS = ("a", "b")', "global 'WORDS'"),
    ("work.py", '"strip": str.strip', '"strip": str.lstrip', "global 'RULES'"),
    ("work.py", "twice = made(2)", "twice = made(3)", "closure 'factor' of helper 'inner'"),
    ("work.py", "return x * factor", "return x + factor", "helper 'inner'"),
    ("work.py", "self.text.split()", "self.text.split(',')", "helper 'Doc.words'"),
    ("work.py", "self.text.upper()", "self.text.lower()", "helper 'Doc.upper'"),
    ("work.py", "size: int = 1", "size: int = 2", "class 'Doc'"),
    ("work.py", 'text.rstrip(".")', 'text.rstrip("!")', "helper 'polish'"),
    ("work.py", "return func(*args, **kwargs)", "return [func(*args, **kwargs)]", "helper 'polish'"),
    ("helpers.py", "text.strip().lower()", "text.strip()", "helper 'normalise'"),
    ("helpers.py", "x * 10", "x * 11", "helper 'scaled'"),
    ("helpers.py", "OFFSET = 1", "OFFSET = 2", "global 'OFFSET' of helper 'deeper'"),
    ("helpers.py", "x < 5", "x < 6", "helper 'deepest'"),
    ("late.py", "len(text)", "len(text) + 1", "import 'late'"),
]


@pytest.mark.slow
def test_edits_that_change_what_is_done_change_the_digest_and_are_named(project: Project) -> None:
    digest, parts = project.code()
    seen = {digest}
    for file, old, new, part in CHANGES:
        changed, others = project.edited(file, old, new).code()
        assert changed not in seen, (old, new)
        seen.add(changed)
        differing = {name for name in {*parts, *others} if parts.get(name) != others.get(name)}
        if part != "import 'late'":
            assert part in {name.partition(" (")[0] for name in differing}, (old, differing)


HARMLESS = [
    ("work.py", "# a comment", "# another comment\n    # of two lines"),
    ("work.py", "    # a comment\n", ""),
    ("work.py", '    """Do the work."""\n', ""),
    ("work.py", '"""Do the work."""', '"""Do the work,\n    in many words."""'),
    ("work.py", "LIMIT = 3\n", "\n\n\n\nLIMIT = 3\nOTHER = 9\n"),
    ("work.py", "def work(text, k=2, *, key", "def work(\n    text: str,\n    k: int = 2,\n    *,\n    key: 'str'"),
    (
        "work.py",
        "[normalise(word) for word in Doc(text).words() if len(word) > LIMIT]",
        "[\n normalise(\n  word\n )\n for word in Doc(text).words()\n if len(word) > LIMIT\n ]",
    ),
    (
        "work.py",
        "    return found, number, polish(text), late",
        "    return (\n        found,\n        number,\n        polish(text)\n    , late",
    ),
    ("work.py", "helpers.deeper(k) + twice(k) + inner(k)", "(helpers.deeper(k)\n            + twice(k)\n + inner(k))"),
    (
        "work.py",
        "    for rule in RULES.values():\n        found.append(rule(text))",
        "    for rule in RULES.values(): found.append(rule(text))",
    ),
    ("work.py", 'key="x"', "key='x'"),
    ("work.py", "LIMIT = 3", "LIMIT = 2 + 1"),
    ("helpers.py", "def normalise(text):\n", 'def normalise(text):\n    "Tidy."\n'),
    ("helpers.py", "unrelated = 5", "unrelated = 6"),
    ("helpers.py", "def never_used(x):\n    return x", "def never_used(x):\n    return x + 1"),
]


def closed(text: str) -> str:
    """The tuple that an edit opened gets its bracket."""
    return text.replace("json.dumps(WORDS), key", "json.dumps(WORDS), key)") if "return (" in text else text


@pytest.mark.slow
def test_edits_that_change_nothing_leave_the_digest(project: Project) -> None:
    digest, _ = project.code()
    for file, old, new in HARMLESS:
        edited = project.edited(file, old, new)
        edited.files[file] = closed(edited.files[file])
        assert edited.code()[0] == digest, (old, new)


@pytest.mark.slow
def test_the_digest_is_the_same_in_every_process_and_hash_seed(project: Project) -> None:
    first = project.code(PYTHONHASHSEED="0")
    for seed in ("1", "2", "3", "4"):
        assert project.code(PYTHONHASHSEED=seed) == first


@pytest.mark.slow
def test_a_file_edited_after_it_was_loaded_changes_nothing_yet(project: Project) -> None:
    before, after, fresh = project.start(
        """
        import importlib, json, pathlib, work, helpers
        from hypernodes._code import code_of
        codes = [code_of(work.work)]
        file = pathlib.Path("helpers.py")
        file.write_text(file.read_text().replace("x * 10", "x * 1000000"))
        codes.append(code_of(work.work))
        importlib.reload(helpers), importlib.reload(work)
        codes.append(code_of(work.work))
        print(json.dumps([code.digest.hex() for code in codes]))
        """
    )
    assert before == after != fresh


@pytest.mark.slow
def test_a_function_has_its_digest_as_main_and_as_a_module_and_sent_by_value(project: Project) -> None:
    project.files["main.py"] = WORK + textwrap.dedent(
        """
        if __name__ == "__main__":
            import cloudpickle, pathlib, sys
            import helpers, work as module
            from hypernodes._code import code_of
            sys.path.append(sys.argv[1])
            cloudpickle.register_pickle_by_value(helpers)
            pathlib.Path("sent").write_bytes(cloudpickle.dumps(work))
            pathlib.Path("instance").write_bytes(cloudpickle.dumps(Doc("a")))
            from hypernodes._digest import digest_of
            print(json.dumps([code_of(work).parts, code_of(module.work).parts, digest_of(Doc("a")).hex()]))
        """
    )
    project.start("print(1)")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV"))}
    env = {**kept, "PYTHONPATH": os.pathsep.join(map(str, (CORE, PLUGGY))), "PYTHONDONTWRITEBYTECODE": "1"}
    run: Callable[..., Any] = functools.partial(
        subprocess.run, env=env, cwd=project.path, capture_output=True, text=True, timeout=120, check=False
    )
    done = run([sys.executable, "main.py", str(PLUGGY)])
    assert done.returncode == 0, done.stderr
    as_main, as_module, instance = json.loads(done.stdout)
    assert as_main == as_module
    for name in ("main.py", "work.py", "helpers.py"):
        (project.path / name).unlink()
    script = """if True:
        import json, pathlib, pickle
        from hypernodes._code import code_of
        from hypernodes._digest import digest_of
        func, instance = (pickle.loads(pathlib.Path(name).read_bytes()) for name in ("sent", "instance"))
        print(json.dumps([code_of(func).parts, digest_of(instance).hex()]))
    """
    done = run([sys.executable, "-c", script])
    assert done.returncode == 0, done.stderr
    far, far_instance = json.loads(done.stdout)
    assert far == as_main
    assert far_instance == instance


# -- in this process

LIMIT = 1
LOCK = threading.Lock()
SERIAL = (number for number in range(3))
CLIENTS = {"a": [SERIAL]}
SHAPES: list[Any] = []
logger = __import__("logging").getLogger("x")


def run(source: str, name: str = "f", **scope: Any) -> Any:
    """A function with no source that could be found."""
    scope.setdefault("__name__", "made_by_exec")
    exec(compile(textwrap.dedent(source), "<made>", "exec", dont_inherit=True), scope)
    return scope[name]


def digest(func: Any) -> bytes:
    return code_of(func).digest


def test_functions_made_by_exec_and_lambdas_on_one_line_are_told_apart() -> None:
    assert digest(run("def f(x): return x + 1")) == digest(run("# moved\n\ndef f(x):\n    return x + 1"))
    assert digest(run("def f(x): return x + 1")) != digest(run("def f(x): return x + 2"))
    one, other, again = (lambda x: x + 1), (lambda x: x + 2), (lambda x: x + 1)
    assert digest(one) == digest(again) != digest(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("def f(x): return 1", "def f(x): return True"),
        ("def f(x): return 1", "def f(x): return 1.0"),
        ("def f(x): return 0.0", "def f(x): return -0.0"),
        ("def f(x): return 'a'", "def f(x): return b'a'"),
        ("def f(x): return x in {1, 2}", "def f(x): return x in (1, 2)"),
        ("def f(x): return x.a", "def f(x): return x.b"),
        ("def f(x): return len(x)", "def f(x): return sum(x)"),
        ("def f(x): return x < 1", "def f(x): return x <= 1"),
        ("def f(x): return x and 1", "def f(x): return x or 1"),
        ("def f(x):\n if x: return 1\n return 2", "def f(x):\n if not x: return 1\n return 2"),
        ("def f(x):\n while x: x -= 1", "def f(x):\n if x: x -= 1"),
        ("def f(x):\n for y in x: yield y", "def f(x):\n for y in x: return y"),
        ("def f(x): return x", "async def f(x): return x"),
        ("async def f(x): return x", "async def f(x): return await x"),
        ("def f(x, y): return x - y", "def f(y, x): return x - y"),
        ("def f(x): return x", "def f(*x): return x"),
        ("def f(x): return x", "def f(*, x): return x"),
        ("def f(x):\n try: return x()\n except: return 1", "def f(x):\n try: return x()\n finally: return 1"),
        ("def f(x):\n try: x()\n except A: pass\n x()", "def f(x):\n try: x(); x()\n except A: pass"),
        ("def f(x):\n x()\n try: x()\n except A: pass", "def f(x):\n try: x()\n except A: pass\n x()"),
        ("def f(x):\n with x: return 1", "def f(x):\n x\n return 1"),
        ("def f(x): return lambda y: y + 1", "def f(x): return lambda y: y + 2"),
        ("def f(x): return [lambda: y for y in x]", "def f(x): return [lambda: x for y in x]"),
        ("def f(x):\n class A:\n  k = 1\n return A", "def f(x):\n class A:\n  k = 2\n return A"),
        (
            "def f(x):\n class A:\n  def g(self): return 1\n return A",
            "def f(x):\n class A:\n  def g(self): return 2\n return A",
        ),
        ("def f(x): return f'{x}'", "def f(x): return f'{x!r}'"),
        ("def f(x): return x[1:2]", "def f(x): return x[1:3]"),
        ("def f(x):\n a = x(); b = x(); return a, b", "def f(x):\n a = x(); b = x(); return b, a"),
        ("def f(x):\n match x:\n  case 1: return 2", "def f(x):\n match x:\n  case 2: return 2"),
        ("def f(x):\n x(); x(); x()", "def f(x):\n x(); x()"),
        ("def f(x):\n while True:\n  if x(): continue\n  x.a()", "def f(x):\n while True:\n  if x(): break\n  x.a()"),
        ("def f(x):\n while True: pass", "def f(x): pass"),
        ("def f(x): return 'a' 'b'", "def f(x): return 'a b'"),
        ("def f(x, k=1): return k", "def f(x, k=True): return k"),
        ("def f(x): assert x; return 1", "def f(x): return 1"),
        ("def f(x): import os; return os", "def f(x): import os.path; return os"),
        ("def f(x): return y", "y = None\ndef f(x): return y"),
        ("y = 1\ndef f(x): return y", "y = '1'\ndef f(x): return y"),
        ("def g(): return 1\ndef f(x): return g()", "def g(): return 2\ndef f(x): return g()"),
        ("def g(): return f\ndef f(x): return g", "def g(): return f(1)\ndef f(x): return g"),
        ("class A: k = 1\ndef f(x): return A.k", "class A: k = 2\ndef f(x): return A.k"),
        (
            "class B: k = 1\nclass A(B): pass\ndef f(x): return A.k",
            "class B: k = 2\nclass A(B): pass\ndef f(x): return A.k",
        ),
        ("class A(int): pass\ndef f(x): return A(x)", "class A(float): pass\ndef f(x): return A(x)"),
        ("def g(): pass\ng.k = 1\ndef f(x): return g.k", "def g(): pass\ng.k = 2\ndef f(x): return g.k"),
    ],
)
def test_what_does_something_else_has_another_digest(one: str, other: str) -> None:
    assert digest(run(one)) != digest(run(other))
    assert digest(run(one)) == digest(run("'''doc'''\n\n\n" + one))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("def f(x):\n if x: return 1\n return 2", "def f(x):\n    if x:\n        return 1\n\n    return 2"),
        ("def f(x): return None", "def f(x):\n 'doc'\n return None"),
        ("def f(x: int) -> int: return x", "def f(x): return x"),
        (
            "def f(x):\n class A:\n  def g(self): self.k = 1\n return A",
            "def f(x):\n\n\n class A:\n  'doc'\n  def g(self):\n   'doc'\n   self.k = 1\n return A",
        ),
        ("def f(x, y): return x(y, x, y)", "def f(x, y):\n return x(\n  y,\n  x,\n  y,\n )"),
        ("def f(x): return (1)", "def f(x):\n return (\n  1\n )"),
        ("def f(x):\n pass\n return x", "def f(x): return x"),
        ("def f(x):\n while True:\n  if x(): break", "def f(x):\n while True:\n  if (\n   x()\n  ):\n   break"),
        ("def f(x): return 60 * 60", "def f(x): return 3600"),
    ],
)
def test_what_does_the_same_in_other_lines_has_the_same_digest(one: str, other: str) -> None:
    assert digest(run(one)) == digest(run(other))


@pytest.mark.slow
def test_a_helper_in_a_circle_and_a_chain_of_many_helpers_end() -> None:
    assert digest(run("def g(x): return f(x)\ndef f(x): return g(x)"))
    many = "\n".join(f"def f{at}(x): return f{at + 1}(x)" for at in range(3000)) + "\ndef f3000(x): return x + {}"
    one = code_of(run(many.format(1), "f0"))
    other = code_of(run(many.format(2), "f0"))
    assert one.digest != other.digest
    assert {name for name in one.parts if one.parts[name] != other.parts[name]} == {"helper 'f3000'"}


def test_a_global_that_is_bound_anew_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def limited(x: int) -> int:
        return min(x, LIMIT)

    before = digest(limited)
    assert digest(limited) == before
    monkeypatch.setitem(globals(), "LIMIT", 2)
    assert digest(limited) != before


def test_a_closure_and_a_list_that_changed_are_noticed() -> None:
    k, found = 1, [1]

    def closed_over(x: int) -> int:
        return x + k + found[0]

    before = code_of(closed_over)
    k = 2
    after = code_of(closed_over)
    assert {name for name in before.parts if before.parts[name] != after.parts[name]} == {"closure 'k'"}
    found.append(2)
    assert digest(closed_over) != after.digest


class Scaler:
    factor = 2

    def __init__(self, k: Any) -> None:
        self.k = k

    def __call__(self, x: int) -> int:
        return x * int(self.k)

    def method(self, x: int) -> int:
        return x + int(self.k)

    @classmethod
    def made(cls, x: int) -> int:
        return x + cls.factor

    @staticmethod
    def plain(x: int) -> int:
        return x


def base(x: int, k: int = 1) -> int:
    return x + k


def test_methods_partials_and_callable_objects_count_code_and_state() -> None:
    things = [
        *(Scaler(1), Scaler(2), Scaler(1).method, Scaler(2).method, Scaler.made, Scaler.plain, base, len, str.upper),
        *(
            functools.partial(base, k=2),
            functools.partial(base, k=3),
            functools.partial(base, 2),
            functools.lru_cache(base),
        ),
        json.dumps,
    ]
    assert len({digest(thing) for thing in things}) == len(things)
    assert digest(Scaler(1).method) == digest(Scaler(1).method)
    assert digest(functools.partial(base, k=2)) == digest(functools.partial(base, k=2))


def test_a_node_counts_as_its_function() -> None:
    assert code_of(node(base, output_name="y", retries=3)) == code_of(base)
    made = node(base, output_name="y")

    def caller(x: int) -> int:
        return made(x)

    def plain(x: int) -> int:
        return base(x)

    assert "helper 'base'" in code_of(caller).parts and "helper 'base'" in code_of(plain).parts


def test_libraries_count_by_version_and_python_by_its_own() -> None:
    np = pytest.importorskip("numpy")

    def uses(x: Any) -> Any:
        return np.linalg.norm(x) + json.loads("1")

    parts = code_of(uses).parts
    assert "package 'numpy'" in parts and "python" in parts
    assert not [name for name in parts if name.startswith("helper")]


@pytest.mark.slow
def test_installed_distributions_count_by_version_and_what_nobody_installed_by_its_code(project: Project) -> None:
    site = project.path / "site-packages"
    (site / "acme").mkdir(parents=True)
    info = site / "acme_tools-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-tools\nVersion: 1.0\n")
    (info / "RECORD").write_text("acme/__init__.py,,\n")
    (site / "acme" / "__init__.py").write_text("def go(x): return x\n")
    (site / "loose.py").write_text("def go(x): return x\n")
    project.files["user.py"] = "import acme, loose\ndef f(x): return acme.go(x), loose.go(x)\n"
    script = f"""
        import json, sys
        sys.path.append({str(site)!r})
        from user import f
        from hypernodes._code import code_of
        print(json.dumps(code_of(f).parts))
    """
    parts = project.start(script)
    assert "package 'acme-tools'" in parts and "global 'acme'" in parts and "global 'loose.go'" in parts
    (site / "acme" / "__init__.py").write_text("def go(x): return -x\n")
    assert project.start(script) == parts
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-tools\nVersion: 1.1\n")
    newer = project.start(script)
    assert {name for name in parts if parts[name] != newer[name]} == {"package 'acme-tools'"}
    (site / "loose.py").write_text("def go(x): return -x\n")
    assert project.start(script) != newer


def test_decorators_of_the_standard_library_are_seen_through() -> None:
    import contextlib

    def opened(value: int) -> Any:
        return run(
            f"@contextmanager\ndef g():\n yield {value}\n@singledispatch\ndef h(x): return {value}\n"
            f"@cache\ndef i(): return 1\ndef f(x):\n with g(): return h(x), i()",
            contextmanager=contextlib.contextmanager,
            singledispatch=functools.singledispatch,
            cache=functools.cache,
        )

    assert digest(opened(1)) == digest(opened(1)) != digest(opened(2))


def test_a_logger_does_no_harm() -> None:
    def logs(x: int) -> int:
        logger.info("x")
        return x

    assert digest(logs)


def test_a_lock_that_a_function_takes_does_no_harm() -> None:
    def locked(x: int) -> int:
        with LOCK:
            return x

    assert code_of(locked)


def test_what_cannot_be_told_is_named_with_the_way_to_it() -> None:
    def counted(x: int) -> int:
        return next(SERIAL) + x

    def asks(x: int) -> Any:
        return CLIENTS["a"], x

    def outer(x: int) -> Any:
        return asks(x)

    with pytest.raises(UnkeyableError, match=r"'SERIAL' cannot .* generator") as caught:
        code_of(counted)
    assert "@node(cache=False)" in str(caught.value)
    with pytest.raises(
        UnkeyableError, match=r"function '.*outer': global 'CLIENTS' of helper 'asks'.*'CLIENTS\['a'\]\[0\]'"
    ):
        code_of(outer)


def test_a_container_of_functions_that_holds_the_caller_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def caller(x: int) -> Any:
        return [shape(x) for shape in SHAPES]

    monkeypatch.setitem(globals(), "SHAPES", [caller, base])
    assert digest(caller) == digest(caller)
    assert "helper 'base'" in code_of(caller).parts


def test_a_code_can_be_compared_pickled_and_read() -> None:
    import pickle

    code = code_of(base)
    assert isinstance(code, Code) and len(code.digest) == 32
    assert pickle.loads(pickle.dumps(code)) == code
    assert all(len(bytes.fromhex(part)) == 32 for part in code.parts.values())
    assert set(code.parts) == {"python", "function 'base'", "default 'k'"}


def test_a_function_as_a_value_is_told_by_its_code() -> None:
    assert digest_of(run("def f(x): return x")) == digest_of(run("def f(x):\n    return x"))
    assert digest_of([run("def f(x): return x")]) != digest_of([run("def f(x): return -x")])
