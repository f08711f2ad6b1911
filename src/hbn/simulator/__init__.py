"""A simulated cohort in the form of HBN-EEG: people, behaviour and EEG with known effects."""
