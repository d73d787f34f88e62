"""What the generators share: drawing, and writing files. README.md describes these."""

import argparse
import json
import sys
import zlib
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

DTYPES = {"f64": np.float64, "f32": np.float32}
DEFAULT_SEED = 7


class Draw:
    """Random numbers of one case.

    Everything is drawn in f64 and then rounded, so that the f32 and the f64
    file of a case hold the same draw.
    """

    def __init__(self, seed, name, dtype):
        # crc32 and not hash(): Python salts the latter in every process.
        self.rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        self.dtype = dtype

    def normal(self, shape, scale=1.0):
        return (scale * self.rng.standard_normal(shape)).astype(self.dtype)

    def uniform(self, shape, low, high):
        return self.rng.uniform(low, high, shape).astype(self.dtype)

    def integers(self, shape, low, high):
        return self.rng.integers(low, high, shape).astype(np.int32)


def save(path, case, tensors):
    # Scalars are stored as [1]; safetensors needs contiguous arrays.
    tensors = {key: np.ascontiguousarray(np.atleast_1d(value))
               for key, value in tensors.items()}
    for key, value in tensors.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ValueError(f"{path.name}: {key} is not finite")
    save_file(tensors, path,
              metadata={"case": json.dumps(case, sort_keys=True)})
    print(path.name, flush=True)


def write(folder, case, tensors):
    name = case["name"].replace("/", ".")
    save(folder / f"{name}.{case['dtype']}.safetensors", case, tensors)


def arguments(description):
    """The parser of what all generators take."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    parser.add_argument("--only", default="", metavar="PREFIX",
                        help="cases whose GROUP.CASE starts with PREFIX")
    return parser


def write_all(options, cases, header, tolerated=()):
    """Write the files of a generator.

    `cases` yields (run function, header) of every case; the headers lack
    `header`, which all have, and the dtype, unless the case has only one. A
    case that ends in a tolerated exception is left out, and named.
    """
    options.out_dir.mkdir(parents=True, exist_ok=True)
    for run, base in cases:
        if not base["name"].replace("/", ".").startswith(options.only):
            continue
        for dtype_name, dtype in DTYPES.items():
            if base.get("dtype", dtype_name) != dtype_name:
                continue
            case = {**base, **header, "dtype": dtype_name,
                    "generator_seed": options.seed}
            if case["driver"] not in ("train", "losses"):
                case["seed"] = options.seed
            try:
                tensors = run(case, Draw(options.seed, case["name"], dtype))
                write(options.out_dir, case, tensors)
            except tolerated as error:
                print(f"{case['name']} {dtype_name} left out: {error}"[:300],
                      f"\n  {json.dumps(case)}", file=sys.stderr, flush=True)


def main(description, all_cases, header):
    write_all(arguments(description).parse_args(), all_cases(), header)
