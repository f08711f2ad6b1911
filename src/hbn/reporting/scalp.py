"""Scalp maps of what a network's spatial filters pick up."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

N_MAPS = 16
NOTE = (
    "Covariance of each filter's output with every electrode, each map on its own scale (the sign has no "
    "meaning). Numbers: how strongly the network reads the filter, relative to the first."
)


def filter_maps(path: Path) -> tuple[str, plt.Figure]:
    """Title and drawing of the spatial filters in a model file, the most used first."""
    # Slow to import, and of no use without the model.
    import mne

    from hbn.data.bids import CHANNELS, MONTAGE
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
    order = use.argsort(descending=True)[:N_MAPS].tolist()

    info = mne.create_info(list(CHANNELS), 100.0, "eeg")
    info.set_montage(MONTAGE)
    rows = -(-len(order) // 8)
    image, axes = plt.subplots(rows, 8, figsize=(12, 1.8 * rows), layout="constrained", squeeze=False)
    for place in axes.flat[len(order) :]:
        place.set_axis_off()
    for place, k in zip(axes.flat, order, strict=False):
        mne.viz.plot_topomap(patterns[:, k].numpy(), info, axes=place, show=False, contours=4, sensors=False)
        place.set_title(f"{use[k] / use.max():.2f}", fontsize=9)
    return f"Challenge 1: the {len(order)} spatial filters that are used most", image
