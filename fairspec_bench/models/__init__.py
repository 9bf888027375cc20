"""Models, found and loaded.

model          a causal model that can be stepped and rolled back
hub            where its files are: embedded, a folder, the Hub's cache
adapters       PEFT adapters, merged into their base
quantization   weights rounded while loading
kv_cache       the cache of a ragged batch
codec          text ↔ token ids, chat templates, stop strings
vocabulary     the tokens of a tokenizer, and where two differ
embedded/      the weights of the embedded pair
"""
