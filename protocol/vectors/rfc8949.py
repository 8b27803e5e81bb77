"""RFC 8949, appendix A, transcribed: what of it is in our subset, what is not; and the forms that strictness refuses.

Values are in the notation of described.py.
"""

# (hex, value): one encoding each, accepted.
ACCEPTED: list[tuple[str, object]] = [
    ("00", 0), ("01", 1), ("0a", 10), ("17", 23), ("1818", 24), ("1819", 25), ("1864", 100), ("1903e8", 1000),
    ("1a000f4240", 1_000_000), ("1b000000e8d4a51000", 1_000_000_000_000),
    ("1bffffffffffffffff", 18_446_744_073_709_551_615), ("3bffffffffffffffff", -18_446_744_073_709_551_616),
    ("20", -1), ("29", -10), ("3863", -100), ("3903e7", -1000),
    ("f4", False), ("f5", True), ("f6", None),
    ("40", {"bytes": ""}), ("4401020304", {"bytes": "01020304"}),
    ("60", ""), ("6161", "a"), ("6449455446", "IETF"), ("62225c", '"\\'), ("62c3bc", {"utf8": "c3bc"}),
    ("63e6b0b4", {"utf8": "e6b0b4"}), ("64f0908591", {"utf8": "f0908591"}),
    ("80", []), ("83010203", [1, 2, 3]), ("8301820203820405", [1, [2, 3], [4, 5]]),
    ("98190102030405060708090a0b0c0d0e0f101112131415161718181819", list(range(1, 26))),
    ("a0", {"map": []}), ("a201020304", {"map": [[1, 2], [3, 4]]}),
    ("a26161016162820203", {"map": [["a", 1], ["b", [2, 3]]]}), ("826161a161626163", ["a", {"map": [["b", "c"]]}]),
    ("a56161614161626142616361436164614461656145",
     {"map": [["a", "A"], ["b", "B"], ["c", "C"], ["d", "D"], ["e", "E"]]}),
]  # fmt: skip

_A = "RFC 8949, appendix A: "

# (why, hex, tags that may occur): refused.
REFUSED: list[tuple[str, str, list[int]]] = [
    *[(_A + "a bignum", data, [2, 3]) for data in ("1c", "3c")],
    *[(_A + "a bignum", data, []) for data in ("c249010000000000000000", "c349010000000000000000")],
    *[
        (_A + "a float", data, [])
        for data in (
            "f90000", "f98000", "f93c00", "fb3ff199999999999a", "f93e00", "f97bff", "fa47c35000", "fa7f7fffff",
            "fb7e37e43c8800759c", "f90001", "f90400", "f9c400", "fbc010666666666666", "f97c00", "f97e00", "f9fc00",
            "fa7f800000", "fa7fc00000", "faff800000", "fb7ff0000000000000", "fb7ff8000000000000", "fbfff0000000000000",
        )
    ],
    *[(_A + "undefined or a simple value", data, []) for data in ("f7", "f0", "f8ff", "f818")],
    *[
        (_A + "a tag that was not asked for", data, [18])
        for data in (
            "c074323031332d30332d32315432303a30343a30305a", "c11a514b67b0", "c1fb41d452d9e8200000", "d74401020304",
            "d818456449455446", "d82076687474703a2f2f7777772e6578616d706c652e636f6d",
        )
    ],
    *[
        (_A + "an indefinite length", data, [])
        for data in (
            "5f42010243030405ff", "7f657374726561646d696e67ff", "9fff", "9f018202039f0405ffff", "9f01820203820405ff",
            "83018202039f0405ff", "83019f0203ff820405",
            "9f0102030405060708090a0b0c0d0e0f101112131415161718181819ff", "bf61610161629f0203ffff",
            "826161bf61626163ff", "bf6346756ef563416d7421ff",
        )
    ],
    *[
        ("a number longer than it needs to be", data, [18])
        for data in ("1800", "1817", "190000", "1900ff", "1a0000ffff", "1b00000000ffffffff", "3817", "3900ff",
                     "5800", "590001ff", "7801" + "61", "980101", "b8010101", "d812" + "80", "d9001280")
    ],
    *[("a reserved length", data, []) for data in ("1c", "1d", "1e", "1f", "3f", "5c", "7d", "9e", "bc", "fc", "ff")],
    *[("a simple value in two bytes", data, []) for data in ("f814", "f815", "f816", "f800")],
    *[("map keys out of order", data, []) for data in ("a203040102", "a2616202616101", "a2616101" + "0102",
                                                       "a22001" + "0102", "a2626161016162" + "02")],
    *[("a map key twice", data, []) for data in ("a201020103", "a2616101616102", "a220012002")],
    *[
        ("a map key that is neither integer nor text", data, [18])
        for data in ("a1f501", "a1f601", "a14101" + "01", "a18001", "a1a001", "a1d20101",
                     "a20102f503")
    ],
    *[
        ("text that is not UTF-8", data, [])
        for data in ("61ff", "6180", "61c3", "62c0af", "62c1bf", "63e08080", "63eda080", "63edbfbf", "64f0808080",
                     "64f4908080", "64f5808080", "62c328", "63e28228", "64f0288cbc", "63e6b0" + "61", "64f09085" + "61")
    ],
    *[("the end is missing", data, []) for data in ("", "18", "19ff", "1a000000", "1b00000000000000", "41", "61",
                                                    "430102", "81", "8301", "a1", "a101", "5818", "d2")],
    *[("the end is missing", data, [18]) for data in ("d2", "d281")],
    *[
        ("a length beyond what is there", data, [])
        for data in ("5bffffffffffffffff", "7b7fffffffffffffff", "9bffffffffffffffff", "bbffffffffffffffff",
                     "9a7fffffff", "5a7fffffff00", "9affffffff00")
    ],
    *[("bytes after the end", data, []) for data in ("0000", "f600", "8000", "a000", "6161" + "61", "00ff")],
    ("nine levels of arrays around a number", "81" * 9 + "00", []),
    ("nine levels of maps", "a100" * 9 + "00", []),
    ("nine tags", "d2" * 9 + "00", [18]),
    ("ten levels of nothing", "81" * 9 + "80", []),
    ("a tag of 64 bits that was not asked for", "dbffffffffffffffff00", [18]),
    ("more than 4096 items", "991001" + "00" * 4097, []),
    ("more than 4096 items in two arrays", "82" + ("990800" + "00" * 2048) * 2, []),
]  # fmt: skip

# (why, hex, tags that may occur): accepted at a bound.
ALSO_ACCEPTED: list[tuple[str, str, list[int]]] = [
    ("eight levels around a number", "81" * 8 + "00", []),
    ("eight levels around nothing", "81" * 8 + "80", []),
    ("4096 items", "991000" + "00" * 4096, []),
    ("a listed tag", "d74401020304", [23]),
    ("tag 18", "d280", [18]),
    ("negative keys come after positive ones, texts last", "a5000018180120022001" + "6003", []),
    ("a shorter text comes first", "a2616201626161" + "02", []),
    ("the largest number of one byte, two, four", "8418ff19010019ffff1a00010000", []),
    ("bytes of 256", "590100" + "00" * 256, []),
    ("the highest code point", "64f48fbfbf", []),
    ("around the surrogates", "66ed9fbfee8080", []),
]
