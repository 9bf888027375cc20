"""Speculative decoding on a ragged batch of token ids (docs/ENGINE.md). Read `speculative` first.

speculative       the loop (`speculative_decode`), the steps of a block, and `Decoder`
acceptance        the acceptance test, greedy and sampled: pure functions
sampling          logits → log-probabilities under temperature, top-k and top-p
rng               random numbers as a function of seed, stream, position and purpose
batch             a request, and the rows on the device
queue             the host's side: requests waiting, running, finished
ending            where an output ends
clock             times of blocks and of the steps within them
teacher_forcing   a model's logits over finished texts, for replay
drafters/         what proposes tokens: one file a kind
backends/         how a block is executed: eager, compiled, CUDA graph and its rehearsal on a CPU
"""
