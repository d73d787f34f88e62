"""Prints the folders of Python's packages that have NVRTC 13 or cuBLAS 13."""

import glob
import site
import sys

roots = site.getsitepackages() + [p for p in sys.path if p.endswith("-packages")]
folders = {}
for name in ("libnvrtc.so.13", "libcublas.so.13"):
    for root in roots:
        for file in glob.glob(f"{root}/nvidia/**/{name}", recursive=True):
            folders[file.rsplit("/", 1)[0]] = None
print(":".join(folders))
