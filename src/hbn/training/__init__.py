"""The training loop, the device it runs on and the probe of a GPU."""
