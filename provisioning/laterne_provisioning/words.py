"""A key's short name as words that two people can compare over the telephone.

The scheme is ours and needs no list: a byte is a syllable, its high four bits choose the consonant at the front,
its low four bits the vowel and the consonant at the end; two syllables are a word. A kid of 8 bytes is four words.
"""

_FRONTS = "bdfghjklmnprstvw"
_ENDS = tuple(vowel + consonant for vowel in "aeio" for consonant in "lnrs")


def words(data: bytes) -> str:
    """Such as "baldin-sorgel-..." for bytes. An odd last byte is a word of one syllable."""
    syllables = [_FRONTS[byte >> 4] + _ENDS[byte & 15] for byte in data]
    return "-".join("".join(syllables[at : at + 2]) for at in range(0, len(syllables), 2))
