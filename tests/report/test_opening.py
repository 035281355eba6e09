"""What a reader meets first says what the verdicts say."""

from made_records import NAMES, cell

from reprolib.report import claims, opening

JUDGED = [
    {"claim": "A.", "verdict": "not run"},
    {"claim": "B.", "verdict": "holds"},
    {"claim": "C <1.", "verdict": "at reduced scale"},
]


def test_every_verdict_has_a_word():
    assert set(opening.WORDS) == set(claims.VERDICTS)


def test_claims_are_grouped_and_counted_by_word():
    assert opening.found(JUDGED) == "**Reproduced** (1): B.\n\n**Could not be tested** (2): A. C <1."


def test_a_chip_says_in_words_what_its_colour_says():
    line = opening.chips("a & b", JUDGED)
    assert line.startswith('<p class="chips"><b>a &amp; b</b> <span class="chip reproduced">● 1 reproduced</span> ')
    assert line.endswith('<span class="chip could-not-be-tested">○ 2 could not be tested</span></p>')


def test_a_sentence_sorts_the_data_sets_of_a_row_by_verdict():
    cells = [
        cell("JULE", "usps", mean=0.8, verdict="below"),
        cell("JULE", "digits", mean=0.95, verdict="above"),
        cell("K-means", "usps", verdict="not run"),
    ]
    assert opening.numbers(cells, NAMES) == (
        "**JULE**: above on Digits (0.950 for 0.900); below on USPS (0.800 for 0.900)."
    )
