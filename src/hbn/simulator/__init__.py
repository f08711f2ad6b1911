"""A cohort in the form of HBN-EEG, with people, behaviour and EEG of known effects."""
