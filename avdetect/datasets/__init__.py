"""What is trained on: the manifest, an adapter a public dataset, pseudo-fakes, augmentation, and the cache of Clips."""
