"""The direction of imports (DESIGN, section 2), what the scoring path may load, and constructs that nobody may use."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

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

UNPICKLERS = {
    *("pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "hickle", "jsonpickle")
}
# Calls that build what a file asks for, by the last part of their name: `import pandas as p` hides nothing.
UNPICKLING_CALLS = {
    *("read_pickle", "unsafe_load", "unsafe_load_all", "full_load", "full_load_all", "load_all", "read_hdf"),
    "register_custom_ops_library",
}
NAMES = {"sys.path", "os.system", "os.popen", "yaml.Loader", "yaml.CLoader", "yaml.FullLoader", "yaml.UnsafeLoader"}
# From where `load` must not be imported by its bare name: the checks below look for the whole one.
HIDDEN_LOADERS = {(module, "load") for module in ("numpy", "torch", "yaml", "torch.serialization", "numpy.lib.npyio")}


def modules() -> dict[str, Path]:
    """Dotted name without the package -> file; the package itself is "" and an alias of nothing."""
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


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
    known = {name.split(".")[0] for name in modules()}
    return {part for name in names if name.startswith("avdetect.") and (part := name.split(".")[1]) in known}


def allowed(layer: str) -> set[str]:
    if layer in BESIDE:
        top = dict.fromkeys(("cli", "doctor", "batch", "serve"), "report") | {"evaluation": "detector"}
        torch_free = NEEDS_TORCH if layer in ("evaluation", "batch", "serve") else set()
        return {*ORDER[: ORDER.index(top.get(layer, "bundle")) + 1], layer, *BESIDE[layer]} - torch_free
    return {*ORDER[: ORDER.index(layer) + 1]}


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


CODE = [*sorted(PACKAGE.rglob("*.py")), *sorted((ROOT / "tools").rglob("*.py"))]
NAMED = {name: path for name, path in modules().items() if name}


def test_every_module_has_a_layer() -> None:
    unknown = {name.split(".")[0] for name in NAMED} - {*ORDER, *BESIDE, "weights"}
    assert not unknown, f"say in DESIGN and here where {unknown} stand(s)"
    assert set(ORDER) - {"_version"} <= {name.split(".")[0] for name in NAMED}, "a layer of DESIGN has gone"


def test_imports_run_one_way() -> None:
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
        named = {n.split(".")[0] for n in imports(tree)} & TRAINING_ONLY
        assert named == INSIDE_FUNCTIONS.get(name, set()), name
        for_types = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
        inside = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)] + for_types  # neither runs at import
        everywhere = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
        within = {id(n) for function in inside for n in ast.walk(function)}
        outside = {n.split(".")[0] for node in everywhere if id(node) not in within for n in imports(node)}
        assert not outside & TRAINING_ONLY, name


def loaded_by(modules: list[str]) -> set[str]:
    """What a fresh interpreter has loaded after it has imported these."""
    code = f"import sys, importlib\nfor n in {modules}: importlib.import_module(n)\nprint(*sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=120)
    return set(done.stdout.split())


def roots(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


HEAVY = {"torch", "torchaudio", "torchvision", "lightning", "pytorch_lightning", "timm", "librosa", "safetensors"}
HEAVY |= {"matplotlib", "jinja2"}  # plots of an evaluation, and pages, when they are drawn


def test_scoring_loads_neither_torch_nor_training_nor_the_server() -> None:
    wanted = sorted(f"avdetect.{name}" for name in NAMED if name.split(".")[0] in SCORING)
    assert {"avdetect.detector", "avdetect.cli", "avdetect.report.text", "avdetect.bundle"} <= set(wanted)
    loaded = loaded_by(wanted)
    assert {"avdetect.scoring", "avdetect.jobs.pool"} <= loaded
    server = {"fastapi", "starlette", "pydantic", "uvicorn", "prometheus_client"}
    assert not roots(loaded) & (HEAVY | server | {"sklearn", "scipy", "pandas", "ray", "insightface"})
    beside = tuple(f"avdetect.{n}" for n in ("datasets", "training", "evaluation", "serve", "export", *NEEDS_TORCH))
    assert not [name for name in loaded if name.startswith(beside)]


def test_evaluation_needs_no_torch_and_the_package_itself_and_media_hardly_anything() -> None:
    loaded = loaded_by(sorted(f"avdetect.{name}" for name in NAMED if name.split(".")[0] == "evaluation"))
    assert "sklearn" in loaded
    assert not roots(loaded) & HEAVY
    cli = {"torch", "cv2", "onnxruntime", "numpy", "pandas", "insightface", "avdetect.detector"}
    for module, heavy in {
        "avdetect": {"numpy", "cv2", "onnxruntime", "pandas", "rich", "yaml"},
        "avdetect.cli": cli,  # help is quick
        "avdetect.media": {"ffmpeg", "imageio_ffmpeg", "torch", "cv2", "yaml", "urllib.request"},
    }.items():
        assert not loaded_by([module]) & heavy, module


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
            found += _calls(node)
    return found


def _calls(node: ast.Call) -> list[str]:
    given = {k.arg: ast.unparse(k.value) for k in node.keywords}
    name = ast.unparse(node.func)
    found = []
    if given.get("shell", "False") != "False":
        found.append("shell=True")
    if given.get("allow_pickle", "False") != "False":
        found.append("allow_pickle")
    if name in ("np.load", "numpy.load") and given.get("allow_pickle") != "False":
        found.append("np.load without allow_pickle=False")
    if name in ("torch.load", "fabric.load") and given.get("weights_only") != "True":
        found.append(f"{name} without weights_only=True")
    if name.rpartition(".")[2] in UNPICKLING_CALLS or name == "torch.hub.load":
        found.append(name)
    if name in ("yaml.load", "yaml.unsafe_load", "yaml.full_load", "eval", "exec", "pd.read_pickle", "__import__"):
        found.append(name)
    return found


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


@pytest.mark.parametrize("code", FORBIDDEN)
def test_the_check_of_forbidden_constructs_sees_each(code: str) -> None:
    assert forbidden(ast.parse(code))
