"""The preprocessing cache: clips in WebDataset tars, written by avdetect preprocess and read by datasets.clips."""
