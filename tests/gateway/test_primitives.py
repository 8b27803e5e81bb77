"""The gateway's ciphers, judged by the vectors of Wycheproof; the board's run on the same files (tests/firmware)."""

import pytest
from tests.firmware.wycheproof import vectors
from tests.protocol.edhoc_primitives import new_key, run

from laterne_gateway.primitives import (
    PRIMITIVES,
    agree,
    agreement,
    ccm_open,
    ccm_seal,
    decompress,
    hkdf_expand,
    hkdf_extract,
    valid,
)

P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF  # SEC 2, 2.4.2: the field of P-256
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
BESIDE_THE_CURVE = bytes(63) + b"\x01"


def test_every_signature_of_wycheproof_is_judged_as_its_vector_says() -> None:
    wrong = []
    for test in vectors("ecdsa_secp256r1_sha256_p1363_test.json"):
        key = bytes.fromhex(test["publicKey"]["uncompressed"])[1:]
        taken = valid(key, bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"]))
        if taken is not (test["result"] == "valid"):
            wrong.append((test["tcId"], test["comment"]))
    assert wrong == []


def test_every_agreement_of_wycheproof_is_the_one_of_its_vector() -> None:
    """A handshake knows a key as x, or as x and y; all encodings that are neither are invalid in the vectors, too."""
    wrong = []
    for test in vectors("ecdh_secp256r1_ecpoint_test.json"):
        encoded, private = bytes.fromhex(test["public"]), bytes.fromhex(test["private"].lstrip("0").rjust(64, "0"))
        try:
            if encoded[:1] in (b"\x02", b"\x03"):  # the oddness of y does not change the shared x
                public = run(decompress(encoded[1:]))
            elif encoded[:1] == b"\x04":
                public = encoded[1:]
            else:
                assert test["result"] == "invalid"
                continue
            answer = run(agree(private, public)).hex()
            assert run(agreement(private)(public)).hex() == answer
        except ValueError:
            answer = "refused"
        # "acceptable" are the compressed points, which is all that is ever sent of one (RFC 9528, 3.7).
        if answer != ("refused" if test["result"] == "invalid" else test["shared"]):
            wrong.append((test["tcId"], test["comment"], test["result"], answer))
    assert wrong == []


def test_every_sealed_message_of_wycheproof_is_opened_or_refused_as_its_vector_says() -> None:
    wrong = []
    for test in vectors("aes_ccm_test.json"):
        key, nonce, message, associated, sealed = (
            bytes.fromhex(text)
            for text in (test["key"], test["iv"], test["msg"], test["aad"], test["ct"] + test["tag"])
        )
        try:
            opened = ccm_open(key, nonce, sealed, associated, test["tagSize"] // 8) == message
        except ValueError:
            opened = False
        try:
            made = ccm_seal(key, nonce, message, associated, test["tagSize"] // 8) == sealed
        except ValueError:
            made = False
        if (opened, made) != (test["result"] == "valid",) * 2:
            wrong.append((test["tcId"], test["comment"]))
    assert wrong == []


def test_every_derived_key_of_wycheproof_is_the_one_of_its_vector() -> None:
    wrong = []
    for test in vectors("hkdf_sha256_test.json"):
        key = hkdf_extract(bytes.fromhex(test["salt"]), bytes.fromhex(test["ikm"]))
        try:
            made = hkdf_expand(key, bytes.fromhex(test["info"]), test["size"]).hex()
        except ValueError:
            made = "refused"
        if made != (test["okm"] if test["result"] == "valid" else "refused"):
            wrong.append((test["tcId"], test["comment"]))
    assert wrong == []


def test_extracting_is_the_hmac_of_wycheproof() -> None:
    """RFC 5869, 2.2: HKDF-Extract is HMAC, the salt its key."""
    wrong = []
    for test in vectors("hmac_sha256_test.json"):
        mac = hkdf_extract(bytes.fromhex(test["key"]), bytes.fromhex(test["msg"])).hex()
        if (mac[: test["tagSize"] // 4] == test["tag"]) is not (test["result"] == "valid"):
            wrong.append((test["tcId"], test["comment"]))
    assert wrong == []


def test_what_a_peer_got_wrong_is_a_value_error_and_nothing_else() -> None:
    private, public = new_key()
    sealed = ccm_seal(bytes(16), bytes(13), b"a message", b"a header", 8)
    # x = 1 has no point on this curve; P + 5 is 5, which has one, in a form that nobody may write.
    for x in (b"", bytes(31), bytes(33), b"\xff" * 32, *(number.to_bytes(32, "big") for number in (1, P, P + 5))):
        with pytest.raises(ValueError, match=r"."):
            run(PRIMITIVES.decompress(x))
    for point in (b"", public[:63], public + b"\x00", BESIDE_THE_CURVE, bytes(64)):
        with pytest.raises(ValueError, match=r"."):
            run(PRIMITIVES.agree(private, point))
        with pytest.raises(ValueError, match=r"."):
            run(agreement(private)(point))
        assert not valid(point, b"", bytes(64))
    for changed in (sealed[:-1], sealed[:7], b"", sealed + b"\x00", bytes([sealed[0] ^ 1]) + sealed[1:]):
        with pytest.raises(ValueError, match="tag"):
            PRIMITIVES.ccm_open(bytes(16), bytes(13), changed, b"a header", 8)


@pytest.mark.parametrize("private", [b"", bytes(32), ORDER.to_bytes(32, "big"), b"\xff" * 32])
def test_what_is_no_private_key_is_refused_when_it_is_loaded(private: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        agreement(private)


def test_a_new_key_pair_belongs_together_and_is_never_the_same() -> None:
    (private, public), (other_private, other_public) = new_key(), new_key()
    assert (len(private), len(public)) == (32, 64)
    assert private != other_private
    shared = run(agree(private, other_public))
    assert shared == run(agreement(other_private)(public))
    # Either y will do: only x is sent, and only x is shared (RFC 9528, 3.7).
    assert run(decompress(public[:32]))[:32] == public[:32]
    assert run(agree(other_private, run(decompress(public[:32])))) == shared
