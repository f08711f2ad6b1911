"""The split of a participant, which depends only on the id and the release."""

import hashlib
from collections.abc import Sequence

SPLITS = ("train", "validation", "test")


def split_of(
    participant_id: str, release: str, test_releases: Sequence[str], test_fraction: float, validation_fraction: float
) -> str:
    """'train', 'validation' or 'test' for a participant.

    If `test_releases` names releases, these are the test set, and a hash of the id divides the others into
    train and validation. If it is empty, the hash draws the test set as well. Adding participants never
    moves another participant to a different split.
    """
    if release in test_releases:
        return "test"
    if not test_releases and _uniform(f"test:{participant_id}") < test_fraction:
        return "test"
    return "validation" if _uniform(f"validation:{participant_id}") < validation_fraction else "train"


def _uniform(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
