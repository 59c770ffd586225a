"""Many files: names (sources) go through a pool of workers (run) into the journal, and from there into the tables."""
