"""Pairs with a known language imbalance: corpora, tokenizer, trainer, and the embedded pair's weights and recipe."""
