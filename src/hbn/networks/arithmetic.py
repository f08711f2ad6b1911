"""The arithmetic of PyTorch in this process."""

import torch


def use_cpu(threads: int) -> None:
    """Set PyTorch to deterministic arithmetic on `threads` threads of the CPU."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
