"""Stretches of a recording in which nothing was recorded: the amplifier was off, paused or disconnected."""

import numpy as np

HELD = 1e-6  # of a channel's standard deviation: a smaller change from sample to sample is none, in any unit

Stretch = tuple[int, int]  # first sample, first sample after it


def dead_stretches(data_uv: np.ndarray, min_samples: int, max_fraction: float) -> list[Stretch]:
    """Where more than `max_fraction` of the channels (C, T) hold one value for at least `min_samples`, in order."""
    n_channels, n_samples = data_uv.shape
    step = max(1, min_samples // 2)  # two samples in succession, so far apart, lie within every such run
    coarse = data_uv[:, ::step]
    limits = HELD * coarse.std(axis=1, dtype=np.float64)
    suspects = np.flatnonzero((np.abs(np.diff(coarse, axis=1)) <= limits[:, None]).any(axis=1))
    if len(suspects) <= max_fraction * n_channels:
        return []
    change = np.zeros(n_samples + 1, dtype=np.int32)  # of the number of channels that are held
    for row in suspects:
        moves = np.flatnonzero(np.abs(np.diff(data_uv[row])) > limits[row])  # from this sample to the next
        starts, stops = np.concatenate([[0], moves + 1]), np.concatenate([moves + 1, [n_samples]])
        is_long = stops - starts >= min_samples
        change[starts[is_long]] += 1
        change[stops[is_long]] -= 1
    dead = np.cumsum(change[:-1]) > max_fraction * n_channels
    return [(start, stop) for start, stop in _runs(dead) if stop - start >= min_samples]


def live_pieces(n_samples: int, dead: list[Stretch], min_samples: int) -> list[Stretch]:
    """What is between dead stretches and at least `min_samples` long, in order."""
    edges = [0, *(edge for stretch in dead for edge in stretch), n_samples]
    pieces = zip(edges[::2], edges[1::2], strict=True)
    return [(start, stop) for start, stop in pieces if stop - start >= min_samples]


def gaps_between(n_samples: int, pieces: list[Stretch]) -> list[Stretch]:
    """What is outside of the pieces, in order."""
    edges = [0, *(edge for piece in pieces for edge in piece), n_samples]
    return [(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True) if stop > start]


def _runs(mask: np.ndarray) -> list[Stretch]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
