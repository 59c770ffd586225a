"""Graphs from anybody: refused before ONNX Runtime sees them, and bounded in memory where they are run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hostile_graphs import GRAPHS, bomb, bundle_with, constant, content, external, honest, matmul, model, nested, stated
from onnx import helper, numpy_helper

from avdetect._onnx import FLOAT, MAX_RUN_BYTES, Port, check_graph, session_options
from avdetect.bundle import Bundle, OnnxNetworks
from avdetect.errors import ModelError
from avdetect.faces import build_detector

WEIGHTS = Path(__file__).parents[1] / "avdetect" / "weights"
FUSION = (Port(FLOAT, (None, 9)), Port(FLOAT, (None, 4)))


def test_what_we_ship_is_accepted() -> None:
    shipped = sorted(WEIGHTS.glob("*/*.onnx"))
    assert shipped
    for path in shipped:
        check_graph(path.read_bytes(), path.name)


def networks(folder: Path, graph: onnx.ModelProto | bytes) -> OnnxNetworks:
    """Of the default bundle with this graph of its fusion."""
    content = graph if isinstance(graph, bytes) else graph.SerializeToString()
    return OnnxNetworks(Bundle.load(bundle_with(folder, fusion_onnx=content)), "cpu", threads=1)


def test_an_honest_graph_in_a_bundle_is_run_and_others_are_refused(tmp_path: Path) -> None:
    found = networks(tmp_path / "honest", honest()).fusion(np.ones((2, 9), np.float32))
    np.testing.assert_array_equal(found, np.full((2, 4), 9, np.float32))
    for name in ("external", "other input"):
        with pytest.raises(ModelError, match=rf"fusion\.onnx is refused: .*{GRAPHS[name][1]}"):
            networks(tmp_path / name, content(name))


@pytest.mark.parametrize("name", GRAPHS)
def test_it_is_refused_and_named(name: str) -> None:
    with pytest.raises(ModelError, match=rf"fusion\.onnx is refused: .*({GRAPHS[name][1]}).*Export it anew"):
        check_graph(content(name), "fusion.onnx", FUSION)


def test_no_other_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime reads such a file from the folder where a program runs, of graphs given as bytes too."""
    np.full(36, 7, "<f4").tofile(tmp_path / "weights.bin")
    monkeypatch.chdir(tmp_path)
    session = onnxruntime.InferenceSession(content("external"), providers=["CPUExecutionProvider"])
    assert session.run(None, {"input": np.ones((1, 9), np.float32)})[0][0, 0] == 63, "then the check is not needed"


def test_fields_are_counted_before_they_become_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two bytes of a file would become eighty in memory."""
    monkeypatch.setattr("avdetect._onnx.MAX_FIELDS", 1000)
    for count, message in ((900, "its input must be"), (1100, "more than 1000 fields")):
        graph = b"\x0a\x00" * count
        content = b"\x3a" + bytes([len(graph) & 127 | 128, len(graph) >> 7]) + graph
        with pytest.raises(ModelError, match=message):
            check_graph(content, "x.onnx", FUSION)


def test_every_graph_is_one_that_protobuf_reads() -> None:
    """Or the refusals would be of something else than what they are called."""
    broken = {"text file", "cut", "endless number", "endless field", "ORT format"}
    for name in GRAPHS.keys() - broken:
        onnx.ModelProto.FromString(content(name))
    merged = onnx.ModelProto.FromString(content("twice")).graph.node[0].attribute[0].t
    assert list(merged.dims) == [4, 4]


ONES = [1.0] * 36
TENSORS = {
    "raw": numpy_helper.from_array(np.ones((9, 4), np.float32), "w"),
    "floats": helper.make_tensor("w", 1, [9, 4], ONES),
    "packed": helper.make_tensor("w", 7, [9, 4], [-1] * 36),
    "doubles": helper.make_tensor("w", 11, [9, 4], ONES),
    "int32": helper.make_tensor("w", 10, [9, 4], np.ones(36, np.float16)),
    "empty": stated([0, 3]),
}


@pytest.mark.parametrize("way", TENSORS)
def test_every_way_to_write_a_tensor_is_read(way: str) -> None:
    branch = nested(1, constant("w", TENSORS[way]))
    made = model(helper.make_node("If", ["c"], ["w"], then_branch=branch), matmul())
    for graph in (made, model(matmul(), tensors=[TENSORS[way]])):
        check_graph(graph.SerializeToString(), "x.onnx", FUSION)


def test_packed_sides_are_read_too() -> None:
    """As proto3 writes them; protobuf reads both."""
    plain = stated([9, 3], raw=bytes(108)).SerializeToString()
    assert plain.startswith(b"\x08\x09\x08\x03")

    def check(sides: bytes) -> None:
        tensor = sides + plain[4:]
        check_graph(b"\x08\x08\x3a" + bytes([len(tensor) + 2]) + b"\x2a" + bytes([len(tensor)]) + tensor, "x.onnx")

    check(b"\x0a\x02\x09\x03")
    with pytest.raises(ModelError, match="not as long"):
        check(b"\x0a\x02\x09\x04")


# -- what a graph may cost when it is run

GROWING = """if True:
    import resource, sys
    import numpy as np
    from avdetect.bundle import Bundle, OnnxNetworks
    from avdetect.errors import ModelError
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
    for folder in sys.argv[2:]:
        try:
            OnnxNetworks(Bundle.load(folder), "cpu", threads=1).fusion(np.ones((1, 9), np.float32))
        except ModelError as error:
            print(" ".join(str(error).split()))
    # Not ru_maxrss, in which the process that ours was forked from counts.
    print(int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) >> 10)
"""


def test_a_graph_that_grows_is_a_model_error(tmp_path: Path) -> None:
    """While it is loaded, when constants are computed, or when it is run. In a process of its own, with little room."""
    assert MAX_RUN_BYTES < 4 * 2**31
    folders = [
        bundle_with(tmp_path / str(count), fusion_onnx=bomb(count).SerializeToString())
        for count in (2**31, 2**40, 2**62, -1)
    ]
    command = [sys.executable, "-c", GROWING, str(2 * MAX_RUN_BYTES), *map(str, folders)]
    *messages, megabytes = subprocess.check_output(command, text=True, timeout=300).splitlines()
    for folder, message in zip(folders, messages, strict=True):
        assert str(folder) in message
        assert "ONNX Runtime cannot load the graphs" in message or "fusion.onnx of" in message
    assert int(megabytes) < 1000


def test_a_graph_that_gives_no_numbers_is_a_model_error(tmp_path: Path) -> None:
    for what, node, rows in (
        ("not a number", helper.make_node("Log", ["w"], ["output"]), 4),
        ("too few", helper.make_node("Identity", ["w"], ["output"]), 1),
        ("other input", matmul(), 4),
    ):
        weight = numpy_helper.from_array(np.full((rows, 4), -1, np.float32), "w")
        with pytest.raises(ModelError, match=r"fusion\.onnx of .*(cannot be run|no number)|cannot load"):
            networks(tmp_path / what, model(node, tensors=[weight])).fusion(np.ones((4, 9), np.float32))


def test_a_graph_that_grows_with_its_input_is_stopped() -> None:
    shape = numpy_helper.from_array(np.array([2**30, 1, 9], np.int64), "s")
    made = model(constant("s", shape), helper.make_node("Expand", ["input", "s"], ["output"])).SerializeToString()
    session = onnxruntime.InferenceSession(made, session_options(1), providers=["CPUExecutionProvider"])
    with pytest.raises(Exception, match=r"Available memory of .* is smaller than requested"):
        session.run(None, {"input": np.ones((1, 9), np.float32)})


def test_hostile_face_detectors_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (WEIGHTS / "mtcnn").glob("*.onnx"):
        (tmp_path / path.name).symlink_to(path)
    assert build_detector("mtcnn", path=tmp_path).name == "mtcnn"
    (tmp_path / "rnet.onnx").unlink()
    (tmp_path / "rnet.onnx").write_bytes(model(matmul(), tensors=[external("x")]).SerializeToString())
    with pytest.raises(ModelError, match=r"rnet\.onnx is refused: .*external data"):
        build_detector("mtcnn", path=tmp_path)
    monkeypatch.setattr("avdetect.faces.scrfd.require", lambda extra, purpose: None)  # nothing of insightface sees it
    (tmp_path / "det.onnx").write_bytes(content("external"))
    with pytest.raises(ModelError, match=r"det\.onnx is refused: .*external data"):
        build_detector("scrfd", path=tmp_path / "det.onnx")
