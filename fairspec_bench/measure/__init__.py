"""What a run's lines mean: every figure of METRICS with its interval, by numpy on records, without torch.

`report` builds the typed report of one run, `compare` the paired difference of two, `show` lays them out. Each room
(acceptance, speed, validity; unfairness across tasks) owns its entries of the one table in `catalogue`.
"""
