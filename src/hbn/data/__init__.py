"""What the recordings say: names, tables, signals, windows, splits and the assembled dataset."""
