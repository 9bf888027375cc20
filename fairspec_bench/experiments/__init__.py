"""Experiments on top of runs: claims of the paper, causes of the gap, methods compared, transfer, engine agreement."""
