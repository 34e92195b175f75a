"""Regions by luminance alone: no weights, under 0.1 s of one core for a photo.

Felzenszwalb's segments are merged two by two, the most alike first, until one is left. Each segment and each union on
the way is a region; those that resist longest being merged into a larger one are the candidates. Of the 33 objects that
captions of COCO photos name with a colour, the best of 40 has a mean IoU of 0.60.
"""

import numpy as np
import torch
from PIL import Image
from skimage.graph import RAG, merge_hierarchical
from skimage.segmentation import felzenszwalb

from lcad.color import rgb_to_luminance
from lcad.io.images import shrink, to_tensor
from lcad.masks.types import Regions

LONG_SIDE = 192  # pixels; larger photos are segmented at this size
SCALE = 30  # of Felzenszwalb's segments; with 100 the mean IoU above is 0.54, and 0.56 in place of 0.73 in scenes
AREA = (0.005, 0.9)  # of the photo, smallest and largest region
SAME = 0.85  # IoU from which of two regions only the better is kept


def luminance_regions(photo: Image.Image, phrases: list[str], max_regions: int = 40) -> Regions:
    """Candidate regions for any phrase, the most distinct first, nested ones among them; all scores are 1.

    Chroma is not looked at; a photo of one luminance has no regions. Masks are of the size that is segmented.
    """
    luminance = rgb_to_luminance(to_tensor(shrink(photo, LONG_SIDE)))[0].double().numpy() / 100  # (h, w)
    padding = [(0, max(0, 2 - side)) for side in luminance.shape]  # one pixel has no neighbour to compare with
    segments = felzenszwalb(np.pad(luminance, padding, "edge"), scale=SCALE, channel_axis=None)
    segments = segments[: luminance.shape[0], : luminance.shape[1]]
    areas = np.bincount(segments.ravel())  # (S,)
    unions = sorted(_unions(_graph(luminance, segments), segments), key=lambda union: -union[1])
    members = torch.zeros(len(unions), len(areas))  # (U, S), 1 where a segment is part of a union
    for row, (labels, _) in zip(members, unions, strict=True):
        row[labels] = 1
    # in torch: the threads of NumPy's own products would go on waiting for more work while the UNet wants the cores
    weights = torch.from_numpy(areas).float()
    sizes = members @ weights
    fitting = (sizes >= AREA[0] * segments.size) & (sizes <= AREA[1] * segments.size)
    members, sizes = members[fitting], sizes[fitting]
    overlap = (members * weights) @ members.T
    iou = overlap / (sizes[:, None] + sizes - overlap)
    kept: list[int] = []
    for region in range(len(members)):
        if len(kept) < max_regions and (iou[region, kept] < SAME).all():
            kept.append(region)
    return Regions(members[kept][:, torch.from_numpy(segments)], [None] * len(kept), torch.ones(len(kept)))


def _graph(luminance: np.ndarray, segments: np.ndarray) -> RAG:
    """The segments as nodes; an edge for each two that touch, with the length of their border in pixels (built with
    arrays: scikit-image's own constructor visits the pixels one by one)."""
    graph = RAG()
    totals = np.bincount(segments.ravel(), luminance.ravel())
    for node, (area, total) in enumerate(zip(np.bincount(segments.ravel()).tolist(), totals.tolist(), strict=True)):
        graph.add_node(node, labels=[node], area=area, total=total)
    first = np.concatenate([segments[1:].ravel(), segments[:, 1:].ravel()])
    second = np.concatenate([segments[:-1].ravel(), segments[:, :-1].ravel()])
    steps = np.concatenate([np.abs(np.diff(luminance, axis=axis)).ravel() for axis in (0, 1)])
    border = first != second
    pairs = np.sort(np.stack([first, second])[:, border], axis=0)
    pairs, index, lengths = np.unique(pairs, axis=1, return_inverse=True, return_counts=True)
    steps = np.bincount(index.ravel(), steps[border])
    for a, b, length, step in zip(*pairs.tolist(), lengths.tolist(), steps.tolist(), strict=True):
        graph.add_edge(a, b, weight=_cost(graph, a, b, length, step), length=length, step=step)
    return graph


def _cost(graph: RAG, a: int, b: int, length: float, step: float) -> float:
    """Of merging two regions: (difference of their means + mean step across their border) smaller area / border."""
    one, other = graph.nodes[a], graph.nodes[b]
    difference = abs(one["total"] / one["area"] - other["total"] / other["area"])
    return (difference + step / length) * min(one["area"], other["area"]) / length


def _unions(graph: RAG, segments: np.ndarray) -> list[tuple[list[int], float]]:
    """Every segment and union that is merged into a larger one: its segments, and the cost of that merge."""
    found: list[tuple[list[int], float]] = []

    def merge(graph: RAG, a: int, b: int) -> None:  # before b takes a over
        found.extend((graph.nodes[node]["labels"], graph[a][b]["weight"]) for node in (a, b))
        for key in ("area", "total"):
            graph.nodes[b][key] += graph.nodes[a][key]

    def reweigh(graph: RAG, a: int, b: int, neighbour: int) -> dict[str, float]:
        edges = [graph[neighbour][node] for node in (a, b) if graph.has_edge(neighbour, node)]
        length, step = (sum(edge[key] for edge in edges) for key in ("length", "step"))
        return {"weight": _cost(graph, b, neighbour, length, step), "length": length, "step": step}

    merge_hierarchical(segments, graph, np.inf, False, True, merge, reweigh)
    return found
