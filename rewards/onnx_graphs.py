"""The same ONNX network in operators that onnxruntime computes in one go on a processor.

PP-OCRv4's recogniser spells its hard swish out in four operators, and scales and shifts by one number before
and after it. At each of them onnxruntime changes the layout of the activations back and forth: convolutions
are but a third of its time.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np


def fused(path: Path) -> bytes:
    """The network in ``path`` without those operators. Its outputs move by rounding alone.

    - x clip(x + 3, 0, 6) / 6 becomes x hardsigmoid(x), which onnxruntime has a kernel for;
    - the softmax over characters at the end is left out: the largest logit is the likeliest character;
    - a scale and a shift by one number become a batch normalisation, which it computes in the convolution
      before them, or else in the convolutions' layout.
    """
    import onnx
    from onnx.helper import make_node
    from onnx.numpy_helper import from_array, to_array

    model = onnx.load(path)
    graph = model.graph
    values = {tensor.name: to_array(tensor) for tensor in graph.initializer}
    values |= {n.output[0]: to_array(n.attribute[0].t) for n in graph.node if n.op_type == "Constant"}
    numbers = {name: float(value.item()) for name, value in values.items() if value.size == 1}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)

    def followed(node: onnx.NodeProto, *operators: str) -> list[onnx.NodeProto] | None:
        """``node`` and those after it, if each is the only user of the one before it."""
        chain = [node]
        for operator in operators:
            after = users.get(chain[-1].output[0], [])
            if len(after) != 1 or after[0].op_type != operator:
                return None
            chain.append(after[0])
        return chain

    def operands(node: onnx.NodeProto) -> tuple[list[str], list[float]]:
        """Names of the tensors and values of the single numbers that enter ``node``."""
        return [n for n in node.input if n not in numbers], [numbers[n] for n in node.input if n in numbers]

    nodes, replaced, channels = [], set(), {}
    for node in graph.node:
        if node.output[0] in replaced:
            continue
        tensors, constants = operands(node)
        if node.op_type == "Softmax" and node.output[0] == graph.output[0].name:
            nodes.append(make_node("Identity", [node.input[0]], [node.output[0]]))
            continue
        if node.op_type == "Conv":
            channels[node.output[0]] = len(values[node.input[1]])
        swish = followed(node, "Clip", "Mul", "Div") if node.op_type == "Add" and constants == [3] else None
        scaled = followed(node, "Add") if node.op_type == "Mul" and len(constants) == 1 else None
        if (
            swish
            and tensors[0] in swish[2].input
            and operands(swish[1])[1] == [0, 6] == [0, *operands(swish[3])[1]]
        ):
            (x,), out = tensors, swish[3].output[0]
            nodes += [
                make_node("HardSigmoid", [x], [f"{out}.gate"], alpha=1 / 6, beta=0.5),
                make_node("Mul", [x, f"{out}.gate"], [out]),
            ]
            chain = swish
        elif scaled and tensors[0] in channels and len(operands(scaled[1])[1]) == 1:
            (x,), out = tensors, scaled[1].output[0]
            per_channel = {
                "scale": constants[0],
                "shift": operands(scaled[1])[1][0],
                "mean": 0.0,
                "variance": 1.0,
            }
            for name, number in per_channel.items():
                full = np.full(channels[x], number, dtype=np.float32)
                graph.initializer.append(from_array(full, f"{out}.{name}"))
            inputs = [x, *(f"{out}.{name}" for name in per_channel)]
            nodes.append(make_node("BatchNormalization", inputs, [out], epsilon=0.0))
            chain = scaled
        else:
            nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
            continue
        replaced |= {part.output[0] for part in chain}
        if x in channels:
            channels[out] = channels[x]
    del graph.node[:]
    graph.node.extend(nodes)
    return model.SerializeToString()
