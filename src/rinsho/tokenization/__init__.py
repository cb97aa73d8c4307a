"""The tokenizer: raw text in, ids out, readable text back; `AutoTokenizer` knows it once this package is imported.

Text is cleaned, cut into words (by MeCab in the strict form, where no piece can cross in the plain form) and encoded
word by word by a Unigram model, each word once: a cache holds its ids. Importing this package loads transformers, not
torch.
"""

import transformers

from rinsho.segmentation import segment
from rinsho.tokenization.folder import add_chat_tokens, fingerprint, load, wrap
from rinsho.tokenization.tokenizer import RinshoTokenizer

__all__ = ["RinshoTokenizer", "add_chat_tokens", "fingerprint", "load", "segment", "wrap"]

# AutoTokenizer looks for an unknown class name in the transformers namespace last. Its own `register` would load
# torch here (1.8 s, 220 MB for every worker that only encodes) and wants a model configuration class to hang it on.
# The name goes to the type of that namespace because transformers makes a second one when a model is first imported.
type(transformers).RinshoTokenizer = RinshoTokenizer  # type: ignore[attr-defined]
