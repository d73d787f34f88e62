"""Serves a folder of event files with TensorBoard, and prints as JSON what its pages receive."""

import json
import sys
import time
import urllib.parse
import urllib.request
from xml.dom import minidom

from tensorboard import program

folder = sys.argv[1]
board = program.TensorBoard()
board.configure(argv=["tensorboard", "--logdir", folder, "--port", "0", "--load_fast=false"])
url = board.launch()


def get(path, **query):
    with urllib.request.urlopen(f"{url}data/{path}?{urllib.parse.urlencode(query)}") as reply:
        return json.load(reply)


for _ in range(100):
    tags = get("plugin/scalars/tags").get(".", {})
    if len(tags) == 2 and get("plugin/text/tags").get("."):
        break
    time.sleep(0.2)
scalars = {tag: get("plugin/scalars/scalars", run=".", tag=tag) for tag in tags}
histograms = {}
for tag in get("plugin/histograms/tags")["."]:
    points = get("plugin/histograms/histograms", run=".", tag=tag)
    histograms[tag] = [[step, sum(count for _, _, count in bins)] for _, step, bins in points]
texts = get("plugin/text/text", run=".", tag="notes")
page = minidom.parse(f"{folder}/report.html")
print(
    json.dumps(
        {
            "scalars": {tag: [p[1:] for p in points] for tag, points in scalars.items()},
            "histograms": histograms,
            "text": [[p["step"], p["text"]] for p in texts],
            "charts": len(page.getElementsByTagName("svg")),
        }
    )
)
