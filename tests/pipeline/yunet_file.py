"""A tiny ONNX file with the inputs and outputs of YuNet: to it a face is a bright cell of 32 x 32 pixels."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

STRIDES = (8, 16, 32)


def write_yunet(path: Path | str, outputs: tuple[str, ...] = ("cls", "obj", "bbox", "kps")) -> None:
    """Write the file. A box is 32 x 48 pixels around the bright cell's middle; `outputs` left out are not there."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    nodes, constants, results = [], [], []
    for stride in STRIDES:
        # A cell of full brightness scores 1, one of half 0; strides other than 32 see nothing.
        seen = 0.5 if stride == 32 else 1e4
        kinds = {
            "cls": (np.full((1, 3, 1, 1), 1 / 3 / 8), [-(255 / 8) * seen * 1.5], True),
            "obj": (np.full((1, 3, 1, 1), 1 / 3 / 8), [-(255 / 8) * seen * 1.5], True),
            "bbox": (np.zeros((4, 3, 1, 1)), [0.5, 0.5, 0.0, math.log(1.5)], False),
            "kps": (np.zeros((10, 3, 1, 1)), [0.5] * 10, False),
        }
        for kind in outputs:
            weights, bias, squash = kinds[kind]
            name = f"{kind}_{stride}"
            shape = np.array([1, -1, len(weights)], np.int64)
            constants += [
                numpy_helper.from_array(weights.astype(np.float32), f"{name}_w"),
                numpy_helper.from_array(np.array(bias, np.float32), f"{name}_b"),
                numpy_helper.from_array(shape, f"{name}_shape"),
            ]
            nodes += [
                helper.make_node("Conv", ["input", f"{name}_w", f"{name}_b"], [f"{name}_1"], kernel_shape=[1, 1]),
                helper.make_node(
                    "AveragePool", [f"{name}_1"], [f"{name}_2"], kernel_shape=[stride, stride], strides=[stride, stride]
                ),
                helper.make_node("Transpose", [f"{name}_2"], [f"{name}_3"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"{name}_3", f"{name}_shape"], [f"{name}_4" if squash else name]),
            ]
            if squash:
                nodes.append(helper.make_node("Sigmoid", [f"{name}_4"], [name]))
            results.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, None, len(weights)]))
    picture = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, "height", "width"])
    graph = helper.make_graph(nodes, "yunet", [picture], results, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)
    checker.check_model(model)
    save(model, str(path))
