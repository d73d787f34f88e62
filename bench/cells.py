"""The cells of `cargo xtask bench --group cells`, written once for JAX and PyTorch.

A cell has the shapes of its weights, in the order of our cell's parameters; the number of its
states; `prepare`, which computes what does not depend on the state, for all steps at once; and
`step`. `F` has the functions of the framework. The equations are those of the documentation of our
cells.
"""

from typing import Callable, NamedTuple


class Cell(NamedTuple):
    shapes: Callable  # (inputs, units) -> shapes
    states: int
    prepare: Callable  # (F, weights, x [T, B, inputs]) -> (parts [T, B, ..], weights of the steps)
    step: Callable  # (F, weights of the steps, parts of a step, states) -> (new states, output)


def layer_norm_prepare(F, weights, x):
    kernel, *norms = weights
    return (x @ kernel[: x.shape[-1]],), (kernel[x.shape[-1] :], *norms)


def layer_norm_step(F, weights, parts, states):
    kernel, *norms = weights
    c, h = states
    gates = F.split(F.add_product(parts[0], h, kernel), 4)
    i, j, f, o = (F.layer_norm(gate, *norms[2 * k : 2 * k + 2]) for k, gate in enumerate(gates))
    c = F.layer_norm(c * F.sigmoid(f + 1) + F.sigmoid(i) * F.tanh(j), *norms[8:])
    h = F.tanh(c) * F.sigmoid(o)
    return (c, h), h


def ugrnn_prepare(F, weights, x):
    kernel, bias = weights
    return (x @ kernel[: x.shape[-1]] + bias,), (kernel[x.shape[-1] :],)


def ugrnn_step(F, weights, parts, states):
    (h,) = states
    gate, candidate = F.split(F.add_product(parts[0], h, weights[0]), 2)
    gate = F.sigmoid(gate + 1)
    h = gate * h + (1 - gate) * F.tanh(candidate)
    return (h,), h


def nas_prepare(F, weights, x):
    recurrent, kernel = weights
    return (x @ kernel,), (recurrent,)


def nas_step(F, weights, parts, states):
    c, h = states
    product = h @ weights[0]
    sums = F.split(parts[0] + product, 8)
    multiplied = F.split(parts[0], 8)[3] * F.split(product, 8)[3]
    p0 = F.tanh(F.tanh(F.sigmoid(sums[0]) * F.relu(sums[1])) + c)
    p1 = F.tanh(F.sigmoid(sums[2]) + F.relu(multiplied))
    p2 = F.tanh(F.tanh(sums[4]) * F.sigmoid(sums[5]))
    p3 = F.sigmoid(F.tanh(sums[6]) + F.sigmoid(sums[7]))
    c = p0 * p1
    h = F.tanh(c * F.tanh(p2 + p3))
    return (c, h), h


def sru_prepare(F, weights, x):
    kernel, bias = weights
    units = kernel.shape[1] // 4
    z = x @ kernel
    gates = F.sigmoid(z[..., units : 3 * units] + bias)
    return (z[..., :units], *F.split(gates, 2), z[..., 3 * units :]), ()


def sru_step(F, weights, parts, states):
    xb, f, r, xt = parts
    c = f * states[0] + (1 - f) * xb
    return (c,), r * F.tanh(c) + (1 - r) * xt


def custom_prepare(F, weights, x):
    gate, gate_bias, kernel, bias, recurrent = weights
    depth = x.shape[-1]
    return (x @ gate[:depth] + gate_bias, x @ kernel + bias), (gate[depth:], recurrent)


def custom_step(F, weights, parts, states):
    (h,) = states
    gate, recurrent = weights
    f = F.sigmoid(F.add_product(parts[0], h, gate))
    q = F.tanh(F.add_product(parts[1], f * h, recurrent))
    h = h + f * (q - h)
    return (h,), h


CELLS = {
    "layer_norm": Cell(
        lambda i, n: [(i + n, 4 * n)] + 10 * [(n,)], 2, layer_norm_prepare, layer_norm_step
    ),
    "ugrnn": Cell(lambda i, n: [(i + n, 2 * n), (2 * n,)], 1, ugrnn_prepare, ugrnn_step),
    "nas": Cell(lambda i, n: [(n, 8 * n), (i, 8 * n)], 2, nas_prepare, nas_step),
    "sru": Cell(lambda i, n: [(i, 4 * n), (2 * n,)], 1, sru_prepare, sru_step),
    "custom": Cell(
        lambda i, n: [(i + n, n), (n,), (i, n), (n,), (n, n)], 1, custom_prepare, custom_step
    ),
}
