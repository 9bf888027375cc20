"""Drafters.

kinds      every kind in one table, without torch
registry   loads a drafter by its kind
base       the protocols: live decoding, and replay on finished texts
model      a causal language model
ngram      smoothed n-gram tables, by group
lookup     prompt lookup
oracle     the reference tokens at a set rate
"""
