"""The preprocessing cache: clips in WebDataset tars, written by tools/preprocess.py and read by datasets.clips."""
