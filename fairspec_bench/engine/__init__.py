"""How tokens are made: speculative decoding on a ragged batch, correct first.

Knows token ids, models, caches and randomness. Knows no text, no languages, no suites: a prompt is a list of ids.
Read `loop` first; everything else in this room is a small function it calls.
"""
