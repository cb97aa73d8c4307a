"""What a tokenizer is worth, in figures and to look at; ours and any other tokenizer folder side by side.

`fit` has the few figures that training reports, `command` the whole comparison (`rinsho tokenizer measure`).
Importing this loads neither numpy nor transformers.
"""

from rinsho.tokenizer.measure.command import MeasureRecipe, measure
from rinsho.tokenizer.measure.fit import TextFit, measure_texts, single_piece_fraction, table

__all__ = ["MeasureRecipe", "TextFit", "measure", "measure_texts", "single_piece_fraction", "table"]
