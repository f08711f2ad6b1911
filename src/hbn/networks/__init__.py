"""The encoder, its heads and the pretraining objective; saving, loading and running networks."""
