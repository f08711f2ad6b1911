"""From trained networks to files for others: ONNX, the challenge's zip, and how fast they are."""
