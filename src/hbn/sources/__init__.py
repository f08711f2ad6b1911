"""Where recordings come from: a folder, an S3 bucket or the simulator."""
