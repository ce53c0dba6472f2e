"""The numerical core: arrays and tensors in, arrays and tensors out; knows nothing of FiftyOne."""
