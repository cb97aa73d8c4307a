"""Which passages tell of the same case (patient), as far as that can be told from the JMED-LLM files.

The files carry no case ids. The radiology reports are by several radiologists on the same images: read side by side,
the 108 reports of RRTNM are of 12 cases and the 72 of RRNER of 8 others, nine reports each. The labels do not tell:
within 11 of the 12 cases the reports differ in T, N or M. Nor would a rule on sides and sizes do: some reports mix
them up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from rinsho.overlap import normalised
from rinsho.tasks.item import Item, documents, passages

# The reports of a case, by the first 11 digits of their `document_key`.
READ_CASES = (
    # RRTNM
    "0ad74e32504 264de66aada 3533b88dda9 43a5d6593e4 6562ccac00d a75d31fa533 c0f5cfccd5f c984169735d d5b03ee953f",
    "1d383098174 20fcdbc3090 244e287c331 40842597d80 75f1f02c23b 79615c0d306 bc8f784ffa9 e9336153167 fef8aa0027a",
    "0e7f3b2bd32 13c917bdc9a 64a0862cdd1 6943c590a0a 6e1684a58f1 97a85db0aff 9a7f59e8b32 a1bf885f88d aad0da7c1d9",
    "0e48071a2dd 0fdd86a4cdf 2b8d1935368 3b1aa16873f 69aef249a3b 7c8e473d591 b6449ac5456 c21f17790c0 c232e8ad453",
    "0653dbded17 3a8d4dacf6f 3ccdfbdec97 48c905f0072 84276379a83 90ef9be9e7f e2e9bdce37c e5747113975 eb7d68f1dca",
    "06c40f2fa2e 0f665f95151 34c1827ec51 622ba23db4b 7317fc1d162 7e38d1f7223 8a5f96d9e6d a62c8df779c bd8fc6e539b",
    "03f5f3674b2 1bbad73054e 70d344d4ced 871243e2078 8e527b2c85e d9c57df7852 e91d9d581ca eeeda42f721 fff2baef032",
    "086704adba9 0f216058b2e 1ee0cb024e3 ba2a5f76e0b bd6d0032673 c547fc618f9 c710723f583 d3f10363d5b e24eec598a1",
    "0d39388bb41 1b1fca2f4e5 1b27d655b3c 2436faf8362 42d9b313817 9f5d9941903 a601d1f74d8 c79a179a30f cff738d5b15",
    "148156d2b40 2619df20ea7 58011e9dc27 61c5302055e 753b4e8e96f 8e0955e8211 aeca0f67da3 c2cea6f228d d3fa3f3c31b",
    "69488c68ba5 7c84b8e3474 85ee71f68f6 872ba061189 8f73ad50ad5 9b8a2bba613 beab64498eb c78f1cdc16c f4a26909f9e",
    "09d174891a7 4aaf354154e 4bcaad6c4c2 6c359be5579 7a12f91889d 8dbf2bafa6b ba296c3b3e5 dc2b62aeca0 ddaa08802a9",
    # RRNER
    "03fd52a3a7b 3634628a44d 479e41a57cb 6c1db24bc64 cb6b9afdecf d670b333414 d79f5dac134 ebc8a09d9a2 faee863e1ea",
    "3d1bf405c16 444f3a44b90 472b49b0106 4dfe1cf29c7 6e54835ab04 7c450458896 a86af97038b c23b816b2cf cd0c7c659d5",
    "2f7eb028ab0 3a3bfe68817 4255eedcaba 89af29b8129 ab2ea39534d ca2c1ad8223 d2eddc36d2e e31c7a14a14 ec80b2b8e49",
    "02dc81c9d25 38456737969 406cbe7ad97 6addfbe4d68 bab0fc2030c c28c637a9c1 d8996b11495 dce1cb9dada f68f009bdc3",
    "1ddd72c1fcc 40e1c402de8 57fbc60f44a 72dd0e52490 7c1eb93b625 b07cdf6a40d e029682b29c f233331b51e fde745175a4",
    "4d66197abe4 558c44ccad5 5df28a67cab 6382396a2f8 70901c4ed63 72afa04dc77 76836dd8405 956db4d6c7d bef2548c867",
    "0837fd65c06 33841efeb39 556ba245c52 781e53a0b9a 919c5020658 975ad913904 9c8282d7a3e b566d813aed e833ede707b",
    "352bfcace8e 35b1754f169 55297b9ff57 8a084dc52bd dadbf515989 ecac01d79e7 edeb854b1ec f211dfa9b6d fa412c8dbc5",
)
READ_CASE_OF = {report: number for number, case in enumerate(READ_CASES) for report in case.split()}

RECORDS = ("crade", "mrner_disease", "mrner_medicine", "nrner", "rrtnm")  # tasks whose passages are whole records
SENTENCE_CHARACTERS = 12  # a shorter sentence stands in a record by chance

HOW_TOLD = {
    "CRADE": "one document is one case",
    "CRNER": "one document is one case",
    "SMDIS": "one document is one case",
    "JMMLU-Med": "one document is one case",
    "NRNER": "cannot be told: a document counts as a case",
    "JCSTS": "a sentence that stands in a record is of its case; others cannot be told and count as cases",
}


def told_cases(items: Iterable[Item]) -> list[set[str]]:
    """The passages of a case, by `document_key`, for each case that is known to have more than one.

    A passage in none of them counts as a case of its own, a passage in two of them joins them.
    """
    reports: dict[int, set[str]] = {}
    records: dict[str, str] = {}
    sentences: dict[str, str] = {}
    for item in items:
        for key, text in zip(documents(item), passages(item), strict=True):
            if key[:11] in READ_CASE_OF:
                reports.setdefault(READ_CASE_OF[key[:11]], set()).add(key)
            if item.task == "jcsts":
                sentences[key] = text
            elif item.task in RECORDS:
                records[key] = text
    return [*reports.values(), *_quoted(sentences, {key: normalised(text) for key, text in records.items()})]


def how_told(pool: str, items: Iterable[Item]) -> str:
    """One sentence on how the cases of a pool were told, for the manifest of a split."""
    if pool in HOW_TOLD:
        return HOW_TOLD[pool]
    reports = {item.document[:11] for item in items}
    read = reports & READ_CASE_OF.keys()
    cases = {READ_CASE_OF[report] for report in read}
    return f"{len(read)} of {len(reports)} reports are of {len(cases)} cases told by reading; others count as cases"


def _quoted(sentences: Mapping[str, str], records: Mapping[str, str]) -> Iterator[set[str]]:
    """Each sentence that stands word for word in a record, with all records that hold it."""
    everything = "\n".join(records.values())
    for key, text in sentences.items():
        sentence = normalised(text)
        if len(sentence) >= SENTENCE_CHARACTERS and sentence in everything:
            yield {key, *(record for record, whole in records.items() if sentence in whole)}
