"""The engine: time, threads, codecs, peers. Knows systems only through `models.contracts`."""
