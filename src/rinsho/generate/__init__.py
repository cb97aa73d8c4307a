"""A model answers: text, log-probabilities, answers limited to spans of a passage.

`engine` answers with torch, in batches that change no answer (tuning, evaluation). `batcher` answers many at once, by
llama.cpp or by transformers (serving, extraction). Importing this package loads neither.
"""
