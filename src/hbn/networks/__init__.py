"""The encoder, its heads and pretraining objectives, on disk and in use."""
