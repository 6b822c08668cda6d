"""What a trace says of its last bits, in words; it comes from a file that anybody may have written."""

import copy

import pytest

from pcsim.tracing.provenance import differences, in_short

FACTS = {
    "processor": "AMD EPYC 25 17",
    "threads": 1,
    "products": {"predict 8x6x5": "pcsim", "hebbian 8x6x5": "pcsim"},
    "versions": {"python": "3.11.7", "numpy": "2.4.6", "h5py": "3.16.0"},
}
BY_A_LIBRARY = FACTS | {"products": FACTS["products"] | {"predict 8x6x5": "torch"}}


def changed(facts, **changes):
    """Return facts with other threads, or another version of a library."""
    facts = copy.deepcopy(facts)
    for name, value in changes.items():
        (facts if name in facts else facts["versions"])[name] = value
    return facts


def test_in_short():
    """One line each; a network of twenty layers has sixty products, of which only the count is shown."""
    assert in_short(BY_A_LIBRARY) == {
        "processor": "AMD EPYC 25 17",
        "threads": "1",
        "products": "1 by pcsim, 1 by torch",
        "versions": "h5py 3.16.0, numpy 2.4.6, python 3.11.7",
    }
    assert in_short(FACTS)["products"] == "2 by pcsim"
    assert in_short(FACTS | {"products": "torch"})["products"] == "torch"


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (FACTS, FACTS, {}),
        (FACTS, changed(FACTS, numpy="2.5.0"), {"numpy": ("2.4.6", "2.5.0")}),
        (FACTS, changed(FACTS, torch="2.13.0"), {"torch": (None, "2.13.0")}),
        (FACTS, changed(FACTS, h5py="3.17.0"), {}),
        (FACTS, changed(FACTS, threads=2), {}),
        (BY_A_LIBRARY, changed(BY_A_LIBRARY, threads=2), {"threads": ("1", "2")}),
        (FACTS, BY_A_LIBRARY, {"predict 8x6x5": ("pcsim", "torch")}),
        (FACTS, FACTS | {"products": "torch"}, {"products": ("2 by pcsim", "torch")}),
    ],
    ids=["none", "version", "new", "recording only", "own on threads", "threads", "product", "all products"],
)
def test_differences(one, other, expected):
    """What can change a bit is named; what cannot, such as threads of our own products, is no false alarm."""
    assert differences(one, other) == expected
    assert differences(other, one) == {name: pair[::-1] for name, pair in expected.items()}


@pytest.mark.parametrize(
    "strange", [None, 7, "text", [], {}, {"products": 1, "versions": [2], "x": {"y": {}}}]
)
def test_older_and_strange_traces(strange):
    """Traces of before have no such attribute, and a hostile one has anything that JSON can say."""
    assert all(isinstance(words, str) for words in in_short(strange).values())
    found = differences(FACTS, strange)
    assert bool(found) == isinstance(strange, dict)
