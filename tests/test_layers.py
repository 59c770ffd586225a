"""The direction of imports (DESIGN, section 2), what the scoring path may load, and constructs that nobody may use."""

from __future__ import annotations

import ast
import functools
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "avdetect"
# From the bottom up; a module may import what stands to its left, and its own package.
ORDER = (
    *("_version", "errors", "files", "_csv", "extras", "jobs", "types", "_checked", "_loops", "config"),
    *("_untrusted", "_onnx", "_media", "media", "faces", "audio", "speech", "tracks", "preprocess", "stills"),
    *("pooling", "scoring", "segments"),
    *("streams", "fusion", "model", "bundle", "verdict", "detector", "report"),
)
# What stands beside: it may import the layers, and of each other only what is named here. No layer imports it.
BESIDE = {
    "export": set(),
    "datasets": set(),
    "training": {"datasets", "evaluation", "export"},
    "evaluation": {"datasets"},
    "doctor": set(),
    "batch": set(),
    "serve": {"batch"},
    # Only inside the command that needs them.
    "cli": {"doctor", "batch", "datasets", "training", "evaluation", "serve"},
}
NEEDS_TORCH = {"streams", "fusion", "model"}  # the only layers that scoring does not load
SCORING = [name for name in ORDER if name not in NEEDS_TORCH] + ["doctor", "batch", "cli"]
TRAINING_ONLY = {
    *("torch", "torchaudio", "torchvision", "lightning", "lightning_fabric", "pytorch_lightning", "timm"),
    *("safetensors", "onnx", "sklearn", "librosa", "scipy", "pandas", "pyarrow", "matplotlib", "jinja2", "insightface"),
}
# The modules of scoring that may name one of these, inside their functions.
INSIDE_FUNCTIONS = {"faces.scrfd": {"insightface"}, "report.page": {"jinja2"}}

UNPICKLERS = set("pickle _pickle cPickle cloudpickle dill joblib shelve marshal hickle jsonpickle".split())
# Calls that build what a file asks for, by the last part of their name: `import pandas as p` hides nothing.
UNPICKLING_CALLS = {
    *"read_pickle unsafe_load unsafe_load_all full_load full_load_all load_all read_hdf".split(),
    "register_custom_ops_library",
}
CALLS = {"torch.hub.load", "yaml.load", "eval", "exec", "__import__"}
NAMES = {"sys.path", "os.system", "os.popen", "yaml.Loader", "yaml.CLoader", "yaml.FullLoader", "yaml.UnsafeLoader"}
# From where `load` must not be imported by its bare name: the checks below look for the whole one.
HIDDEN_LOADERS = {(module, "load") for module in ("numpy", "torch", "yaml", "torch.serialization", "numpy.lib.npyio")}


def modules() -> dict[str, Path]:
    """Dotted name without the package -> file."""
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return {name: path for name, path in names.items() if name}  # without the package itself


NAMED = modules()
KNOWN = {name.split(".")[0] for name in NAMED}
CODE = [*sorted(PACKAGE.rglob("*.py")), *sorted((ROOT / "tools").rglob("*.py"))]


def imports(tree: ast.AST) -> set[str]:
    """Every module named by an import statement, wherever it stands; `from a import b` counts as a and a.b."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the layer; write the whole name"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layers_of(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("avdetect.")} & KNOWN


def allowed(layer: str) -> set[str]:
    if layer in BESIDE:
        top = dict.fromkeys(("cli", "doctor", "batch", "serve"), "report") | {"evaluation": "detector"}
        torch_free = NEEDS_TORCH if layer in ("evaluation", "batch", "serve") else set()
        return {*ORDER[: ORDER.index(top.get(layer, "bundle")) + 1], layer, *BESIDE[layer]} - torch_free
    return {*ORDER[: ORDER.index(layer) + 1]}


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def test_every_module_has_a_layer_and_imports_run_one_way() -> None:
    unknown = KNOWN - {*ORDER, *BESIDE, "weights"}
    assert not unknown, f"say in DESIGN and here where {unknown} stand(s)"
    assert set(ORDER) <= KNOWN, "a layer of DESIGN has gone"
    for name, path in NAMED.items():
        found = imports(parsed(path))
        wrong = layers_of(found) - allowed(name.split(".")[0])
        assert not wrong, f"avdetect.{name} imports {sorted(wrong)}"
        assert not roots(found) & {"tools", "tests", "conftest"}, path
    # The check sees a wrong import.
    tree = ast.parse("def f():\n  from avdetect import training\n  import avdetect.cli\nfrom avdetect.model import A")
    assert layers_of(imports(tree)) == {"training", "cli", "model"}
    assert not {"training", "cli", "model"} & allowed("scoring")
    assert "cli" not in allowed("training")
    assert "export" not in allowed("detector")


def test_scoring_modules_name_no_training_library() -> None:
    for name in [n for n in NAMED if n.split(".")[0] in SCORING]:
        tree = parsed(NAMED[name])
        assert roots(imports(tree)) & TRAINING_ONLY == INSIDE_FUNCTIONS.get(name, set()), name


def roots(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


HEAVY = {"torch", "torchaudio", "torchvision", "lightning", "pytorch_lightning", "timm", "librosa", "safetensors"}
HEAVY |= {"matplotlib", "jinja2", "insightface"}  # plots of an evaluation, and pages, when they are drawn
SERVER = {"fastapi", "starlette", "pydantic", "uvicorn", "prometheus_client"}
# What an import must not load.
LIGHT = {
    "avdetect": {"numpy", "cv2", "onnxruntime", "pandas", "rich", "yaml"},
    "avdetect.cli": {
        "torch",
        "cv2",
        "onnxruntime",
        "numpy",
        "pandas",
        "insightface",
        "avdetect.detector",
    },  # quick help
    "avdetect.media": {"ffmpeg", "imageio_ffmpeg", "torch", "cv2", "yaml", "urllib.request"},
}
# A fresh interpreter, and of each list of modules one copy of it that has imported these: what it has loaded then.
LOADING = """if True:
    import importlib, json, os, sys
    for name, modules in json.loads(sys.argv[1]).items():
        if not os.fork():
            for module in modules:
                importlib.import_module(module)
            print(json.dumps([name, list(sys.modules)]), flush=True)
            os._exit(0)
        assert os.wait()[1] == 0, name
"""


def test_scoring_loads_neither_torch_nor_training_nor_the_server_and_evaluation_no_torch() -> None:
    wanted = {name: [name] for name in LIGHT}
    for kind, layers in (("scoring", SCORING), ("evaluation", ["evaluation"])):
        wanted[kind] = [f"avdetect.{name}" for name in NAMED if name.split(".")[0] in layers]
    assert {"avdetect.detector", "avdetect.cli", "avdetect.report.text", "avdetect.bundle"} <= {*wanted["scoring"]}
    said = subprocess.check_output([sys.executable, "-c", LOADING, json.dumps(wanted)], cwd=ROOT, text=True)
    loaded = {name: set(modules) for name, modules in map(json.loads, said.splitlines())}
    for name, heavy in LIGHT.items():
        assert not loaded[name] & heavy, name
    scoring = loaded["scoring"]
    assert {"avdetect.scoring", "avdetect.jobs.pool"} <= scoring
    assert not roots(scoring) & (HEAVY | SERVER | {"sklearn", "scipy", "pandas", "ray", "insightface"})
    beside = tuple(f"avdetect.{n}" for n in ("datasets", "training", "evaluation", "serve", "export", *NEEDS_TORCH))
    assert not [name for name in scoring if name.startswith(beside)]
    assert "sklearn" in loaded["evaluation"]
    assert not roots(loaded["evaluation"]) & HEAVY


def forbidden(tree: ast.AST) -> list[str]:
    """What this project never does, found in `tree`."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found += ["import *" for alias in node.names if alias.name == "*"]
            found += ["sys.path" for alias in node.names if node.module == "sys" and alias.name == "path"]
        if isinstance(node, ast.Import | ast.ImportFrom):
            roots = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [r for r in roots if r.split(".")[0] in UNPICKLERS]
            found += [r for r in roots for alias in node.names if (r, alias.name) in HIDDEN_LOADERS]
        if isinstance(node, ast.Attribute) and ast.unparse(node) in NAMES:
            found.append(ast.unparse(node))
        if isinstance(node, ast.Call):
            found += forbidden_call(node)
    return found


def forbidden_call(node: ast.Call) -> list[str]:
    given = {k.arg: ast.unparse(k.value) for k in node.keywords}
    name = ast.unparse(node.func)
    pickles, weights = given.get("allow_pickle", "False") != "False", given.get("weights_only") != "True"
    trusting = {
        "shell=True": given.get("shell", "False") != "False",
        "allow_pickle": pickles or (name in ("np.load", "numpy.load") and "allow_pickle" not in given),
        "weights_only": name in ("torch.load", "fabric.load") and weights,
        name: name.rpartition(".")[2] in UNPICKLING_CALLS or name in CALLS,
    }
    return [what for what, found in trusting.items() if found]


def test_nothing_forbidden_and_every_module_says_what_it_is() -> None:
    for path in CODE:
        tree = parsed(path)
        assert forbidden(tree) == [], path
        assert ast.get_docstring(tree), f"{path}: the first line of a module says what it is for"


FORBIDDEN = (
    *("from numpy import *", "import sys; sys.path.insert(0, '.')", "from sys import path", "os.system('ls')"),
    *("subprocess.run('ls', shell=True)", "import pickle", "from joblib import load", "import marshal"),
    *("np.load(f)", "np.load(f, allow_pickle=True)", "np.savez(f, allow_pickle=flag)", "from numpy import load as r"),
    *("torch.load(f)", "torch.load(f, weights_only=False)", "fabric.load(f, state)", "from torch import load"),
    *("torch.hub.load('a', 'b')", "pandas.read_pickle(f)", "from dill import loads", "from yaml import load"),
    *("yaml.load(f)", "class Strict(yaml.Loader): ...", "yaml.unsafe_load(f)", "yaml.full_load_all(f)"),
    "options.register_custom_ops_library('x.so')",
)


def test_the_check_of_forbidden_constructs_sees_each() -> None:
    assert [code for code in FORBIDDEN if not forbidden(ast.parse(code))] == []
