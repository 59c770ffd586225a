"""Training of the streams and of the fusion. Needs the extra `train`."""
