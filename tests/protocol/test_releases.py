"""Releases: envelopes of others and of ours, changed in every byte, and files that are put together wrongly."""

import hashlib
import json
import uuid
import zlib
from pathlib import Path
from typing import Any

import pytest
from tests.firmware.micropython import SOURCES, MicroPython
from tests.fuzz.releases import FILES, is_signed, release_files
from tests.protocol.cddl import check

from laterne_gateway import primitives
from laterne_protocol import cbor, cose, manifest, manifest_writing, release_file, release_index
from laterne_protocol.errors import ObjectError, SignatureError, WireError
from laterne_protocol.release_file import Release, release_of

VECTORS = Path(__file__).parents[2] / "protocol" / "vectors"
RUNNER = Path(__file__).parent / "on_board" / "vectors_runner.py"
SUIT: dict[str, Any] = json.loads((VECTORS / "rfc" / "suit.json").read_text(encoding="utf-8"))
EXAMPLE_KEY = bytes.fromhex(SUIT["public_key"]["x_hex"] + SUIT["public_key"]["y_hex"])
EXAMPLES = [[bytes.fromhex(envelope) for envelope in one["envelopes"]] for one in SUIT["examples"]]
# Why the published envelopes are no releases of ours, even where we would install their component from their place.
REFUSED = {
    0: "lacks key 20",  # nothing is installed
    2: "key that is not ours",  # a reference to somewhere
    3: "commands of a release",  # a component slot
    4: "key that is not ours",  # a load sequence
    5: "component",  # two of them
}


def vectors(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))["vectors"]
    return found


def the_vector(name: str) -> dict[str, Any]:
    (found,) = [one for one in vectors("envelope") if one["name"] == name]
    return found


# Envelopes of others -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(6))
def test_the_signature_of_every_published_envelope_is_good(number: int) -> None:
    found = manifest.authenticated(EXAMPLES[number][1], manifest.MAX_ENVELOPE_BYTES)
    (one,) = found.signatures
    assert one.kid == b""  # the examples name none: for boards that is nobody's
    assert primitives.valid(EXAMPLE_KEY, found.to_be_signed(one.protected), one.signature)
    unsigned = manifest.authenticated(EXAMPLES[number][0], manifest.MAX_ENVELOPE_BYTES)
    assert (unsigned.digest, unsigned.signatures) == (found.digest, [])


def read(number: int) -> manifest.Envelope:
    found = manifest.authenticated(EXAMPLES[number][1], manifest.MAX_ENVELOPE_BYTES)
    manifest.read(found, b"\0", "http://example.com/file.bin")
    return found


def test_the_published_envelope_that_uses_our_subset_is_read() -> None:
    found = read(1)
    vendor = uuid.uuid5(uuid.NAMESPACE_DNS, "arm.com")
    assert uuid.UUID(bytes=found.vendor) == vendor
    assert uuid.UUID(bytes=found.class_id) == uuid.uuid5(vendor, "suit")
    assert (found.sequence, found.index_digest.hex()[:8], found.index_size) == (1, "00112233", 34768)


@pytest.mark.parametrize("number", REFUSED)
def test_the_other_published_envelopes_are_refused_with_a_reason(number: int) -> None:
    with pytest.raises(WireError, match=REFUSED[number]):
        read(number)


def test_boards_read_the_published_envelopes_as_we_do() -> None:
    more = {"component": "00", "uri": "http://example.com/file.bin"}
    with MicroPython(RUNNER, sources=(*SOURCES, VECTORS)) as board:
        found = [board.ask(["suit", example[1].hex(), more]) for example in EXAMPLES]
    assert (found[1]["sequence"], found[1]["size"]) == (1, 34768)
    for number, example in enumerate(EXAMPLES):
        here = manifest.authenticated(example[1], manifest.MAX_ENVELOPE_BYTES)
        message = here.to_be_signed(here.signatures[0].protected)
        assert found[number]["to_be_signed"] == [message.hex()]
        assert primitives.valid(
            EXAMPLE_KEY, bytes.fromhex(found[number]["to_be_signed"][0]), here.signatures[0].signature
        )
        if number in REFUSED:
            assert REFUSED[number] in found[number]["why not"]


@pytest.mark.parametrize("number", range(6))
def test_no_published_envelope_is_a_release(number: int) -> None:
    for data in EXAMPLES[number]:
        with pytest.raises(WireError):
            manifest.envelope_of(data, manifest.MAX_ENVELOPE_BYTES)


def test_vendor_and_class_are_the_uuids_that_the_specification_derives() -> None:
    vendor = uuid.uuid5(uuid.NAMESPACE_URL, "laterne")
    assert vendor.bytes == manifest.VENDOR
    assert uuid.uuid5(vendor, "laterne/micropython/6").bytes == manifest.CLASS_ID
    specification = (VECTORS.parent / "README.md").read_text(encoding="utf-8")
    assert f"`{vendor}`" in specification
    assert f"`{uuid.UUID(bytes=manifest.CLASS_ID)}`" in specification


# Envelopes of ours -------------------------------------------------------------------------------------------------


def changes(data: bytes) -> list[bytes]:
    """Every byte changed in four ways, lost and doubled; every cut."""
    made = []
    for at in range(len(data)):
        for byte in {data[at] ^ 1, data[at] ^ 0x80, 0, 0xFF} - {data[at]}:
            made.append(data[:at] + bytes((byte,)) + data[at + 1 :])
        made += [data[:at] + data[at + 1 :], data[: at + 1] + data[at:], data[:at]]
    return [one for one in made if one != data]


def test_no_change_of_a_signed_envelope_is_accepted() -> None:
    assert changed_and_taken("two of two release keys") == []
    assert changed_and_taken("the same severed") == []


def changed_and_taken(name: str) -> list[bytes]:
    data = bytes.fromhex(the_vector(name)["hex"])
    whole = manifest.envelope_of(data, manifest.MAX_ENVELOPE_BYTES)
    assert is_signed(whole)
    taken = []
    for one in changes(data):
        try:
            found = manifest.envelope_of(one, manifest.MAX_ENVELOPE_BYTES)
        except WireError:
            continue
        # A signature that was damaged or lost leaves the other one: what is signed must be the same then.
        same = (
            found.manifest == whole.manifest and found.index in (None, whole.index) and found.text in (None, whole.text)
        )
        if is_signed(found) and not same:
            taken.append(one)
    return taken


def test_no_change_of_a_signed_envelope_is_accepted_on_a_board() -> None:
    vector = the_vector("the same severed")
    more = {**vector["more"], "threshold": 2}
    changed = changes(bytes.fromhex(vector["hex"]))
    with MicroPython(RUNNER, heap="1M", sources=(*SOURCES, VECTORS)) as board:
        assert "refused" not in board.ask(["envelope", vector["hex"], more])
        found = board.ask_all(["envelope", one.hex(), more] for one in changed)
    assert len(found) > 2000
    assert [one for one in found if "refused" not in one] == []


def test_both_signatures_in_either_order_make_the_same_envelope() -> None:
    data = bytes.fromhex(the_vector("an unsigned envelope with its index and text")["hex"])
    full = manifest.envelope_of(bytes.fromhex(the_vector("two of two release keys")["hex"]), 20480)
    one, other = [(signature.protected, signature.signature) for signature in full.signatures]
    forwards = manifest_writing.with_signature(manifest_writing.with_signature(data, *one), *other)
    backwards = manifest_writing.with_signature(manifest_writing.with_signature(data, *other), *one)
    assert forwards == backwards
    assert manifest_writing.with_signature(forwards, *one) == forwards
    assert forwards.hex() == the_vector("two of two release keys")["hex"]


def test_a_signature_is_asked_for_only_until_there_are_enough() -> None:
    vector = the_vector("the same severed")
    found = manifest.envelope_of(bytes.fromhex(vector["hex"]))
    asked = []

    def valid(key: bytes, message: bytes, signature: bytes) -> "manifest.Verification":
        asked.append(key)
        yield
        return True

    keys = [bytes.fromhex(key) for key in vector["more"]["keys"]]
    assert len(list(manifest.verified(found, keys, 1, valid))) == len(asked) == 1
    assert len(list(manifest.verified(found, keys, 2, valid))) == 2
    with pytest.raises(SignatureError, match="2 of 2 release keys have signed, 3 are needed"):
        list(manifest.verified(found, keys, 3, valid))


def test_a_release_of_as_many_files_as_possible_has_an_index_that_boards_take() -> None:
    files = {f"laterne_firmware/{'x' * 20}{number:03}.mpy": bytes([number]) for number in range(160)}
    index = manifest_writing.index_bytes(release_index.Head("1" * 32, 6, 0, 1, "laterne_firmware.app"), files)
    assert len(index) <= manifest.MAX_INDEX_BYTES
    assert len(manifest_writing.index_of(index)[1]) == 160
    with pytest.raises(ObjectError):
        manifest_writing.index_bytes(release_index.Head("1", 6, 0, 1, "a"), {**files, "one/more.mpy": b""})


def test_a_file_that_is_a_folder_too_is_refused() -> None:
    with pytest.raises(ObjectError, match="a file and a folder"):
        manifest_writing.index_bytes(release_index.Head("1", 6, 0, 1, "a"), {"a": b"", "a-b": b"", "a/b": b""})


# The schema --------------------------------------------------------------------------------------------------------


def test_the_schema_takes_every_good_envelope_and_index_with_all_that_is_in_it() -> None:
    for one in vectors("envelope"):
        if "refused" not in one["gives"] and one["name"] != "no kid":
            fits_envelope(bytes.fromhex(one["hex"]))
    for one in vectors("index"):
        if "refused" not in one["gives"]:
            fits_index(bytes.fromhex(one["hex"]))
    check("release-file", release_files()[0])


def fits_envelope(data: bytes) -> None:
    check("release-envelope", data)
    found = manifest.envelope_of(data, manifest.MAX_ENVELOPE_BYTES)
    check("authentication", found.authentication)
    for one in found.signatures:
        check("header", one.protected)
    digest, *signatures = inside(found.authentication)
    check("full-digest-named", digest)
    for signature in signatures:
        check("release-signature", signature)
    check("manifest", found.manifest)
    parts = inside(found.manifest)
    check("validate", parts[7])
    check("install", parts[20])
    check("common", parts[3])
    check("shared", inside(parts[3])[4])
    if found.text is not None:
        check("release-text", found.text)
    if found.index is not None:
        fits_index(found.index)


def fits_index(data: bytes) -> None:
    check("index", data)
    head, *files = inside(data)
    check("index-head", head)
    for file in files:
        check("index-file", file)


def inside(data: bytes) -> Any:
    return cbor.decode(data)


# Files -------------------------------------------------------------------------------------------------------------


def test_a_release_file_gives_back_all_that_was_put_in() -> None:
    whole = release_files()[0]
    found = release_of(whole)
    assert found.to_bytes() == whole
    assert {path: found.contents[digest] for path, _, digest in found.entries} == FILES
    assert (found.description, found.head.version) == ("Firmware", "0.1.0")
    assert found.base == {"boot.py": b"import gc", "pins/pico.mpy": b"M"}
    assert found.digest == found.manifest.digest[:16]
    assert manifest.envelope_of(found.severed).digest == found.manifest.digest


def parts_of() -> Any:
    return cbor.decode(release_files()[0])


def packed(data: bytes, window: int = 10) -> bytes:
    return release_file.deflated(data, window)


def wrong_files() -> dict[str, tuple[Any, str]]:
    name, envelope, contents, bill, base = parts_of()
    bomb = zlib.compress(bytes(1 << 20), 9)
    text = packed(FILES["laterne_firmware/app.mpy"])
    at = contents.index([1, text])

    def with_content(item: Any) -> list[Any]:
        return [name, envelope, [*contents[:at], item, *contents[at + 1 :]], bill, base]

    return {
        "another name": (["laterne release 2", envelope, contents, bill, base], "not a release file"),
        "a content is missing": ([name, envelope, contents[1:], bill, base], "is not in the release"),
        "contents out of order": ([name, envelope, contents[::-1], bill, base], "order of their digests"),
        "a content twice": ([name, envelope, [contents[0], *contents], bill, base], "order of their digests"),
        "a content that nobody asked for": (with_extra(), "does not name"),
        "an encoding of another kind": (with_content([2, text]), "encoding"),
        "a decompression bomb": (with_content([1, packed(bytes(1 << 20))]), "larger than 32768"),
        "a window that boards do not have": (with_content([1, bomb[:200]]), "cannot be inflated"),
        "deflated and cut": (with_content([1, text[:-1]]), "ends too early"),
        "deflated and more": (with_content([1, text + b"x"]), "bytes follow it"),
        "another bill of materials": ([name, envelope, contents, packed(b"{}", 15), base], "bill of materials"),
        "a bill that is a bomb": ([name, envelope, contents, packed(bytes(1 << 20), 15), base], "larger than"),
        "another base": ([name, envelope, contents, bill, packed(cbor.encode({"boot.py": b"x"}), 15)], "base is not"),
        "a base that leads out": ([name, envelope, contents, bill, packed(cbor.encode({"../x": b""}), 15)], "nowhere"),
        "a base that is a list": ([name, envelope, contents, bill, packed(cbor.encode([]), 15)], "not a map"),
        "a severed envelope": ([name, release_of(release_files()[0]).severed, contents, bill, base], "index and text"),
    }


def with_extra() -> list[Any]:
    name, envelope, contents, bill, base = parts_of()
    extra = sorted([*contents, [0, b"extra"]], key=lambda item: hashlib.sha256(unpacked(item)).digest())
    return [name, envelope, extra, bill, base]


def unpacked(item: Any) -> bytes:
    content: bytes = item[1]
    return release_file.inflated(content, 1 << 20) if item[0] else content


@pytest.mark.parametrize("why", wrong_files())
def test_a_release_file_whose_parts_do_not_belong_together_is_refused(why: str) -> None:
    value, reason = wrong_files()[why]
    with pytest.raises(ObjectError, match=reason):
        release_of(cbor.encode(value))


def test_a_release_counts_when_as_many_release_keys_have_signed_as_the_trust_wants() -> None:
    from laterne_protocol.trust import trust_payload_of

    payload = next(bytes.fromhex(one["hex"]) for one in vectors("trust") if one["name"] == "two release keys must sign")
    both = trust_payload_of(payload)
    assert both.release_threshold == 2
    assert both.to_payload() == payload
    first = next(bytes.fromhex(one["hex"]) for one in vectors("trust") if one["name"] == "trust")
    one_of_two = trust_payload_of(first)
    assert one_of_two.release_threshold == 1
    contents = {hashlib.sha256(content).digest(): content for content in VECTOR_FILES.values()}

    def release(name: str) -> Release:
        return Release(bytes.fromhex(the_vector(name)["hex"]), contents, b"{}", {"boot.py": b"import gc"})

    release("two of two release keys").require_signed(both, primitives.valid)
    release("two of two release keys").require_signed(one_of_two, primitives.valid)
    with pytest.raises(SignatureError, match="0 of 2 release keys have signed, 1 are needed"):
        release("an unsigned envelope with its index and text").require_signed(one_of_two, primitives.valid)


VECTOR_FILES = {
    "laterne_firmware/__init__.mpy": b"",
    "laterne_firmware/app.mpy": b"M" * 700,
    "laterne_firmware/sensors/sht4x.mpy": b"bytecode",
}


def test_a_signature_of_a_release_key_under_an_order_is_no_signature_of_a_release() -> None:
    """An envelope has no external_aad, an object of ours always has: the same payload gives other bytes to sign."""
    found = manifest.envelope_of(bytes.fromhex(the_vector("the same severed")["hex"]))
    protected = found.signatures[0].protected
    payload = cbor.encode([-16, found.digest])
    domains = [one for one in vars(cose).values() if isinstance(one, str) and one.startswith("laterne/")]
    messages = {cose.to_be_signed(domain, protected, payload) for domain in domains}
    assert len(messages) == 9
    assert found.to_be_signed(protected) not in messages
