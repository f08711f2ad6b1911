"""Scalp maps of what a network's spatial filters pick up."""

from collections.abc import Iterable
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

N_MAPS = 16
NOTE = (
    "Covariance of each filter's output with every electrode, each map on its own scale (the sign has no "
    "meaning). Numbers: how strongly the network reads the filter, relative to the first."
)


def filter_maps(path: Path) -> tuple[str, plt.Figure]:
    """Title and drawing of the spatial filters in a model file, the most used first."""
    patterns, use = most_used(path, N_MAPS)
    rows = -(-len(use) // 8)
    image, axes = plt.subplots(rows, 8, figsize=(12, 1.8 * rows), layout="constrained", squeeze=False)
    draw(axes.flat, patterns, use)
    return f"Challenge 1: the {len(use)} spatial filters that are used most", image


def most_used(path: Path, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The patterns (C, N) of the n filters that the network uses most, and their use (N,) relative to the first."""
    # Imported here because the import is slow and only needed if the model exists.
    from hbn.networks.architecture import members_of
    from hbn.networks.inference import load_file

    state = load_file(path, made_by=path.stem)["state"]
    state = next(iter(members_of(state)), state)
    spatial, stem = state["encoder.spatial"], state["encoder.stem.weight"]  # (C, S), (D, 2 S)
    # A filter w responds not to the pattern w but to C w, its covariance with every electrode (Haufe et al. 2014,
    # On the interpretation of weight vectors). The whitener is the inverse square root of C, and
    # w = whitener @ spatial.
    patterns = state["encoder.whitener"].double().inverse() @ spatial.double()  # (C, S)
    use = stem.reshape(len(stem), -1, spatial.shape[1]).square().sum((0, 1)).sqrt() * spatial.norm(dim=0)  # (S,)
    order = use.argsort(descending=True)[:n]
    return patterns[:, order].numpy(), (use[order] / use.max()).numpy()


def draw(panels: Iterable[Axes], patterns: np.ndarray, use: np.ndarray, **options) -> None:
    """Draw each pattern (C, N) with its use (N,) on its own panel; `options` are those of mne.viz.plot_topomap."""
    import mne

    from hbn.data.bids import CHANNELS, MONTAGE

    options = {"contours": 4, "sensors": False, "show": False} | options
    info = mne.create_info(list(CHANNELS), 100.0, "eeg")
    info.set_montage(MONTAGE)
    for k, axes in enumerate(panels):
        if k >= len(use):
            axes.set_axis_off()
            continue
        mne.viz.plot_topomap(patterns[:, k], info, axes=axes, **options)
        axes.set_title(f"{use[k]:.2f}", fontsize=9)
