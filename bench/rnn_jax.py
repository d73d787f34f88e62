"""A workload of `cargo xtask bench --group cells` in JAX, for comparison: `jit` of `lax.scan`.
Prints one line of JSON.

`cargo xtask bench --group cells --compare jax` runs it with the arguments of rnn_torch.py. Needs
jax. It supports the cells of cells.py in one layer, inference and training on the CPU; for anything
else it prints nothing.
"""

import sys
import types

import common
from cells import CELLS

args = common.arguments()
plain = args.layers == 1 and not args.lengths and not args.classes and args.device == "cpu"
if args.cell not in CELLS or args.mode not in ("fwd", "train") or not plain:
    sys.exit()

import jax
import jax.numpy as jnp
import numpy as np


def layer_norm(v, gamma, beta):
    centred = v - v.mean(-1, keepdims=True)
    return (
        centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-12) * gamma + beta
    )


F = types.SimpleNamespace(
    sigmoid=jax.nn.sigmoid,
    tanh=jnp.tanh,
    relu=jax.nn.relu,
    layer_norm=layer_norm,
    split=lambda x, n: jnp.split(x, n, -1),
    add_product=lambda z, h, kernel: z + h @ kernel,
)
cell = CELLS[args.cell]


def outputs(weights, x):
    parts, rest = cell.prepare(F, weights, x)
    zeros = (jnp.zeros((args.batch, args.units)),) * cell.states
    return jax.lax.scan(lambda states, part: cell.step(F, rest, part, states), zeros, parts)[1]


def gradients(weights, x):
    """The loss, and its gradients for the weights and the inputs."""
    wanted = (0, 1) if args.input_grad else (0,)
    return jax.value_and_grad(lambda weights, x: outputs(weights, x).mean(), wanted)(weights, x)


def adam(weights, first, second, step, x):
    """A training step: the loss, the gradients, the update."""
    loss, (grads, *input_grad) = gradients(weights, x)
    first = [0.9 * m + 0.1 * g for m, g in zip(first, grads)]
    second = [0.999 * v + 0.001 * g * g for v, g in zip(second, grads)]
    rate = 1e-4 * jnp.sqrt(1 - 0.999**step) / (1 - 0.9**step)
    weights = [w - rate * m / (jnp.sqrt(v) + 1e-8) for w, m, v in zip(weights, first, second)]
    return (weights, first, second, step + 1), (loss, input_grad)


def peak():
    """GFLOP/s of a square matmul, the best of several runs, measured as in `cargo xtask bench`."""
    side = 1024
    x, product = jnp.full((side, side), 0.5), jax.jit(jnp.matmul)
    times = [common.timed(lambda: product(x, x).block_until_ready()) for _ in range(18)]
    return 2 * side**3 / min(times) / 1e9


if args.verify:
    weights, x = jax.tree.map(jnp.asarray, common.known(cell.shapes(args.inputs, args.units), args))
    _, (grads, input_grad) = jax.jit(gradients)(weights, x)
    common.report_known(args, "jax", jax.jit(outputs)(weights, x), input_grad, grads)
    sys.exit()

random = np.random.default_rng(0)
limit = args.units**-0.5
shapes = cell.shapes(args.inputs, args.units)
weights = [jnp.asarray(random.uniform(-limit, limit, shape), jnp.float32) for shape in shapes]
x = jnp.asarray(random.standard_normal((args.steps, args.batch, args.inputs)), jnp.float32)
if args.mode == "fwd":
    run = jax.jit(outputs)
    times = common.repeat(lambda: run(weights, x).block_until_ready())
else:
    run = jax.jit(adam)
    zeros = [jnp.zeros_like(w) for w in weights]
    carried = weights, zeros, zeros, jnp.float32(1)

    def train():
        global carried
        carried, found = jax.block_until_ready(run(*carried, x))

    times = common.repeat(train)
common.report(args, "jax", jax.__version__, times, peak_gflops=peak())
