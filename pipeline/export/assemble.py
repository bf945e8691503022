"""One ONNX model from an image to probabilities: resize, views, network, head and temperature.

The network is the exported graph that stage one runs, taken as it is; what stands before and
behind it is written node by node. Where the codes are means over maps and the head, or the last
layer of a fine-tuned network, is linear, the network is exported up to its maps, and the model also
says which regions speak for each class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import helper

from ..backbones.engine import open_engine
from ..backbones.graph import graph_path
from ..backbones.quantise import quantised_path
from ..errors import SettingsError
from ..explain.regions import spread
from ..heads import Head
from ..heads.model import AFFINE_METHODS
from ..predict.models import Model, NetworkModel
from ..settings import MachineSettings
from .graph import BOOL, DOUBLE, FLOAT, INT64, UINT8, Graph
from .head import add_decision, add_probabilities, add_scores
from .resize import add_resize

_FLOAT16 = onnx.TensorProto.FLOAT16
_CPU = MachineSettings(device="cpu", engine="onnx")


@dataclass(frozen=True, eq=False)
class Parts:
    """A network's graph, and what its outputs are.

    Attributes
    ----------
    graph : ModelProto
        Input ``images``, uint8 (B, size, size, 3).
    shapes : tuple of tuple of int
        Shapes of its outputs, without the batch.
    maps : bool
        The outputs are maps, which the model averages itself.
    """

    graph: onnx.ModelProto
    shapes: tuple[tuple[int, ...], ...]
    maps: bool


def network_graph(model: Model) -> Parts:
    """Give the graph of a run's network, exported now where it is not in the cache.

    Raises
    ------
    SettingsError
        The run's views are random crops, which no graph can take.
    BackboneError
        The exporter cannot express the network.
    """
    if model.views.kind == "random":
        raise SettingsError(
            "The run averages random crops, which depend on the bytes of the image's file.",
            expected="a run with VIEWS=center, flip or dihedral",
            todo="train the head again, for example with VIEWS=flip",
        )
    if isinstance(model, NetworkModel):
        return _trained_network(model)
    size = model.preprocessing.size
    black = np.zeros((1, size, size, 3), np.uint8)
    layers, maps = model.map_layers(), True
    small = model.asked.precision == "int8"  # calibrated as it is: its maps would be others
    if small or layers is None or model.pool != "mean" or model.head.method not in AFFINE_METHODS:
        layers, maps = model.layers, False
    asked = replace(model.asked, pool="none") if maps else model.asked
    if small:
        engine = model.engine
    else:
        asked = replace(asked, precision="float32")
        engine = open_engine(model.card, layers, model.preprocessing, asked, _CPU, **model.source)
    path = graph_path(
        model.card,
        layers,
        model.card.pooling(asked.pool),
        model.preprocessing,
        cache=model.source["cache"],
    )
    if small:
        path = quantised_path(path, str(model.key.config["calibration"]))
    shapes = tuple(block.shape[1:] for block in engine.run(black))
    return Parts(onnx.load(path), shapes, maps)


def _trained_network(model: NetworkModel) -> Parts:
    """Give a fine-tuned network's graph: with its last maps where its scores are linear in them."""
    size = model.preprocessing.size
    noise = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), np.uint8)
    stage = model.last_map()
    if stage:
        engine, path = model.exported(stage)
        maps, scores = engine.run(noise)
        weight, bias = model.affine()
        codes = maps.mean(axis=_places(maps.shape[1:]), dtype=np.float64)
        if np.allclose(codes @ weight.T + bias, scores, rtol=1e-4, atol=1e-4):
            return Parts(onnx.load(path), (maps.shape[1:], scores.shape[1:]), maps=True)
    engine, path = model.exported()
    shapes = tuple(block.shape[1:] for block in engine.run(noise))
    return Parts(onnx.load(path), shapes, maps=False)


def assemble(
    model: Model, parts: Parts, about: Mapping[str, str], *, geometry: bool = True
) -> onnx.ModelProto:
    """Join geometry, network and head into one model.

    Parameters
    ----------
    model : Model
        Of a run.
    parts : Parts
        Its network, from :func:`network_graph`, perhaps quantised.
    about : mapping of str to str
        The model's metadata.
    geometry : bool
        Crop and resize inside. False: the input is the network's square.

    Returns
    -------
    ModelProto
        Input ``image``: uint8 (H, W, 3), RGB, upright. Optional input ``prepared``: bool, the
        image is the network's square already. Outputs: ``probabilities`` float32 (K,),
        ``class_index`` int64, ``logits`` float32 (K,) before the temperature, ``codes`` float32
        (D,) at length 1 and, where scores are linear in mean-pooled maps, ``evidence`` float32
        (K, h, w), which sums over the regions to each logit minus the mean of the logits.
    """
    before, behind = Graph("before"), Graph("behind")
    size = model.preprocessing.size
    inputs = [helper.make_tensor_value_info("image", UINT8, [size, size, 3])]
    defaults, square = [], "image"
    if geometry:
        inputs = [
            helper.make_tensor_value_info("image", UINT8, ["height", "width", 3]),
            helper.make_tensor_value_info("prepared", BOOL, []),
        ]
        defaults = [helper.make_tensor("prepared", BOOL, [], [False])]
        square = add_resize(before, "image", "prepared", model.preprocessing)
    before.rename(_views(before, square, model.views.kind), "network_images")
    base = _renamed(parts.graph, {"images": "network_images"})
    blocks = [f"network_{output.name}" for output in parts.graph.graph.output]
    classes = len(model.classes)
    outputs: list[tuple[str, int, list[int | None]]] = [
        ("probabilities", FLOAT, [classes]),
        ("class_index", INT64, []),
    ]
    outputs += [("logits", FLOAT, [classes])]
    output = model.output
    if isinstance(model, NetworkModel):
        codes = _codes(behind, blocks[:1], parts, "float32")
        wide = behind.cast(blocks[1], DOUBLE)
        scores = behind.total(wide, 0, "ReduceMean")  # (1, K)
    else:
        codes = _codes(behind, blocks, parts, model.asked.dtype)
        scores = _scores(behind, codes, model.head, model.views.count)
    behind.rename(_flat(behind, behind.cast(scores, FLOAT)), "logits")
    probabilities = _flat(behind, add_probabilities(behind, scores, output))
    behind.rename(behind.cast(probabilities, FLOAT), "probabilities")
    behind.rename(add_decision(behind, probabilities, output), "class_index")
    behind.rename(_unit(behind, codes), "codes")
    outputs.append(("codes", FLOAT, [None]))
    if parts.maps:
        behind.rename(_evidence(behind, blocks[: len(codes)], parts, model), "evidence")
        outputs.append(("evidence", FLOAT, [classes, None, None]))
    graph = helper.make_graph(
        [*before.nodes, *base.graph.node, *behind.nodes],
        "classifier",
        inputs,
        [helper.make_tensor_value_info(*one) for one in outputs],
        [
            *defaults,
            *before.constants,
            *base.graph.initializer,
            *behind.constants,
        ],
    )
    found = helper.make_model(
        graph,
        opset_imports=list(base.opset_import),
        functions=list(base.functions),
        ir_version=base.ir_version,
        producer_name="cnn-codes",
    )
    helper.set_model_props(found, dict(sorted(about.items())))
    return found


def _renamed(model: onnx.ModelProto, inputs: Mapping[str, str]) -> onnx.ModelProto:
    """Give a copy whose values are called ``network_...``, without what describes its making."""
    found = onnx.ModelProto()
    found.CopyFrom(model)

    def name(value: str) -> str:
        return inputs.get(value, f"network_{value}") if value else value

    def clean(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            node.input[:] = [name(value) for value in node.input]
            node.output[:] = [name(value) for value in node.output]
            node.name = name(node.name)
            node.doc_string = ""
            del node.metadata_props[:]
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    clean(attribute.g)
        for tensor in graph.initializer:
            tensor.name = name(tensor.name)
            tensor.doc_string = ""
            del tensor.metadata_props[:]
        for value in (*graph.input, *graph.output):
            value.name = name(value.name)
        del graph.value_info[:]
        del graph.metadata_props[:]
        graph.doc_string = ""

    clean(found.graph)
    return found


def _views(g: Graph, square: str, kind: str) -> str:
    """Stack the views (V, S, S, 3) of the square, in the order of preprocessing."""

    def turned(value: str, axis: int) -> str:
        least = -(2**62)
        return g("Slice", value, g.ints(-1), g.ints(least), g.ints(axis), g.ints(-1))

    views = [square]
    if kind == "dihedral":
        across = g("Transpose", square, perm=[1, 0, 2])
        # numpy's rot90: a quarter turn is the transpose upside down.
        views += [turned(across, 0), turned(turned(square, 0), 1), turned(across, 1)]
    if kind != "center":
        views += [turned(view, 1) for view in views]
    return g("Concat", *[g("Unsqueeze", view, g.ints(0)) for view in views], axis=0)


def _codes(g: Graph, blocks: list[str], parts: Parts, dtype: str) -> list[str]:
    """Give the codes of each layer, float32 (V, D_layer), rounded as the cache stores them."""
    found = []
    for block, shape in zip(blocks, parts.shapes[: len(blocks)], strict=True):
        if parts.maps:
            code = g("ReduceMean", block, g.ints(*_places(shape)), keepdims=0)
        else:
            code = g("Flatten", block, axis=1)
        if dtype == "float16":
            code = g.cast(g.cast(code, _FLOAT16), FLOAT)
        found.append(code)
    return found


def _places(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Axes of a batch of maps that are places: of channels first, channels last, or tokens."""
    return (2, 3) if len(shape) == 3 and not _last(shape) else (1, 2)[: len(shape) - 1]


def _last(shape: tuple[int, ...]) -> bool:
    """Whether a map has its channels last, as Swin has it."""
    return len(shape) == 3 and shape[0] == shape[1] != shape[2]


def _scores(g: Graph, codes: list[str], head: Head, n_views: int) -> str:
    """Score the codes, float64 (1, K); views are averaged before or after, as in training."""
    together = g("Concat", *codes, axis=1) if len(codes) > 1 else codes[0]  # (V, D)
    each = head.views == "all" and head.method not in AFFINE_METHODS
    if n_views > 1 and not each:
        together = g.cast(g.total(g.cast(together, DOUBLE), 0, "ReduceMean"), FLOAT)
    scores = add_scores(g, together, head)
    return g.total(scores, 0, "ReduceMean") if n_views > 1 and each else scores


def _unit(g: Graph, codes: list[str]) -> str:
    """Bring the mean view's codes of each layer to length 1, and all together: float32 (D,)."""
    found = []
    for code in codes:
        mean = g.total(code, 0, "ReduceMean")  # (1, D_layer)
        length = g("Sqrt", g.total(g("Mul", mean, mean), 1))
        tiny = g.constant(np.finfo(np.float32).tiny, np.float32)
        found.append(g("Div", mean, g("Max", length, tiny)))
    together = g("Concat", *found, axis=1) if len(found) > 1 else found[0]
    scaled = g("Div", together, g.constant(np.sqrt(len(found)), np.float32))
    return _flat(g, scaled)


def _flat(g: Graph, value: str) -> str:
    return g("Reshape", value, g.ints(-1))


def _evidence(g: Graph, blocks: list[str], parts: Parts, model: Model) -> str:
    """Add the class activation maps, each minus the mean over the classes, (K, h, w)."""
    weight, bias = model.affine() if isinstance(model, NetworkModel) else model.head.affine()
    weight, bias = weight - weight.mean(axis=0), bias - bias.mean()
    shapes = parts.shapes[: len(blocks)]
    sizes = [_size(shape) for shape in shapes]
    height, width = max(h for _, h, _ in sizes), max(w for _, _, w in sizes)
    layers, start = [], 0
    for block, shape, (channels, h, w) in zip(blocks, shapes, sizes, strict=True):
        one = block
        if _last(shape):
            one = g("Transpose", one, perm=[0, 3, 1, 2])
        elif len(shape) == 2:  # tokens (V, T, C)
            one = g("Transpose", one, perm=[0, 2, 1])
        flat = g("Reshape", one, g.constant([0, channels, -1], np.int64))  # (V, C, T)
        n_places = int(np.prod(shape)) // channels
        part = weight[:, start : start + channels] / n_places
        found = g("MatMul", g.constant(part, np.float32), flat)  # (V, K, T)
        n_front = n_places - h * w
        if n_front:  # class tokens are at no place: spread evenly
            front = g("Slice", found, g.ints(0), g.ints(n_front), g.ints(2))
            rest = g("Slice", found, g.ints(n_front), g.ints(n_places), g.ints(2))
            even = g("Div", g.total(front, 2), g.constant(h * w, np.float32))
            found = g("Add", rest, even)
        found = g("Reshape", found, g.constant([0, len(weight), h, w], np.int64))
        found = g("MatMul", g.constant(spread(h, height), np.float32), found)
        layers.append(g("MatMul", found, g.constant(spread(w, width).T, np.float32)))
        start += channels
    total = layers[0]
    for other in layers[1:]:
        total = g("Add", total, other)  # (V, K, H, W)
    mean = _upright_mean(g, total, model.views.kind, model.views.count)
    even = (bias / (height * width)).reshape(-1, 1, 1)
    return g("Add", mean, g.constant(even, np.float32))


def _size(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Give channels, height and width of a map, or of the square of its patches."""
    if len(shape) == 2:
        side = int(np.sqrt(shape[0]))
        return shape[1], side, side
    return (shape[2], shape[0], shape[1]) if _last(shape) else (shape[0], shape[1], shape[2])


def _upright_mean(g: Graph, maps: str, kind: str, n_views: int) -> str:
    """Turn the maps (V, K, H, W) of the views back and average them, (K, H, W)."""

    def turned(value: str, axis: int) -> str:
        return g("Slice", value, g.ints(-1), g.ints(-(2**62)), g.ints(axis), g.ints(-1))

    total = ""
    for view in range(n_views):
        one = g("Gather", maps, g.constant(view, np.int64), axis=0)  # (K, H, W)
        if (kind == "flip" and view) or (kind == "dihedral" and view >= 4):
            one = turned(one, 2)
        quarter = view % 4 if kind == "dihedral" else 0
        if quarter == 2:
            one = turned(turned(one, 1), 2)
        elif quarter:
            # Back by a quarter: the transpose of the map upside down, or the other way round.
            if quarter == 1:
                one = g("Transpose", turned(one, 1), perm=[0, 2, 1])
            else:
                one = turned(g("Transpose", one, perm=[0, 2, 1]), 1)
        total = g("Add", total, one) if total else one
    return g("Div", total, g.constant(n_views, np.float32))
