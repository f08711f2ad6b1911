"""From recordings to the dataset: names, tables, signals, windows, splits and the assembled dataset."""
