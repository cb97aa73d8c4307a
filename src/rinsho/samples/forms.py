"""The columns of JMED-LLM's tables and which pools a test file draws on.

The fixed wording of the questions and options, which the form requires, lies in `terms/forms.json`; every passage is
ours. Source: SPEC N3-2.
"""

from __future__ import annotations

COLUMNS = {
    "JMMLU-Med": ("tag", "question", "optionA", "optionB", "optionC", "optionD", "answer"),
    "CRADE": ("tag", "question", "optionA", "optionB", "optionC", "optionD", "answer"),
    "RRTNM": ("tag", "question", "optionA", "optionB", "optionC", "optionD", "optionE", "answer"),
    "SMDIS": ("tag", "question", "optionA", "optionB", "answer"),
    "CRNER": ("tag", "question", "answer"),
    "RRNER": ("tag", "question", "answer"),
    "NRNER": ("tag", "question", "answer"),
    "JCSTS": ("question", "optionA", "optionB", "optionC", "optionD", "optionE", "optionF", "answer"),
}
# test file -> pools; the rows of a test file stand in its pools too
TESTS = {
    "jmmlu_med": ("JMMLU-Med",),
    "crade": ("CRADE",),
    "rrtnm": ("RRTNM",),
    "smdis": ("SMDIS",),
    "mrner_disease": ("CRNER", "RRNER"),
    "mrner_medicine": ("CRNER",),
    "nrner": ("NRNER",),
    "jcsts": ("JCSTS",),
}
SMDIS_TAGS = ("influenza", "diarrhea", "hayfever", "cough", "headache", "fever", "runnynose", "cold")
