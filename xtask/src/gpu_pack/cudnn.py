"""Times PyTorch's recurrent layers, which cuDNN runs: microseconds a step."""

import statistics
import time

import torch
from torch import nn

STEPS = 200
TYPES = {
    "f32": (torch.float32, False),
    "tf32": (torch.float32, True),
    "bf16": (torch.bfloat16, True),
    "f16": (torch.float16, True),
}


def median(run):
    times = []
    for i in range(11):
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        if i > 1:  # the first runs warm up
            times.append(time.perf_counter() - start)
    return statistics.median(times) / STEPS * 1e6


for kind in (nn.LSTM, nn.GRU):
    for name, (dtype, tf32) in TYPES.items():
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
        for units in (256, 512, 1024):
            for batch in (16, 64):
                layer = kind(units, units).cuda().to(dtype)
                shape = (STEPS, batch, units)
                x = torch.randn(shape, device="cuda", dtype=dtype, requires_grad=True)

                def forward():
                    with torch.inference_mode():
                        layer(x)

                def train():
                    layer.zero_grad()
                    x.grad = None
                    layer(x)[0].float().mean().backward()

                print(
                    f"{kind.__name__} {name} H{units} B{batch}: {median(forward):.2f} us a step "
                    f"forward, {median(train):.2f} with training",
                    flush=True,
                )
