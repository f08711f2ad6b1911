"""How predictions are scored, and the baselines that see no EEG."""
