"""P1 and P3 on the board: who may have it install what, over its line. One attack after the other on the real firmware.

What a release may contain is the next test's matter (test_a_release_that_lies_is_not_installed.py). Flash operations
are counted at the block device: the board takes readings and closes reports rarely here, so they would be an update's.
"""

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from tests.firmware.attacked import MUCH_LATER, OTHER, SETTINGS, SMALL, attacked
from tests.firmware.release_end import Sender, SignedRelease, running, told_to_stage
from tests.gateway.fake_authority import ORDER, FakeAuthority, Key

from laterne_emulator import image
from laterne_emulator.slots import Record
from laterne_protocol import cbor, cose, credential, manifest, messages, order, receipt
from laterne_protocol.update_messages import ENVELOPE, FAILED, IDLE, INDEX, STAGED, TRIAL, WORKING

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import Benches

NOT_THE_ORDERED_ONE, NOT_SIGNED, FOR_OTHERS = 16, 17, 18


# Who has signed it -------------------------------------------------------------------------------------------------


def enveloped(signed: bytes, *signatures: tuple[dict[int, object], bytes]) -> bytes:
    """The envelope with these in the place of its signatures: protected header, signature; made without our checks."""
    found = manifest.envelope_of(signed)
    items = [cbor.encode([-16, found.digest])]
    for header, signature in signatures:
        items.append(cbor.encode(cbor.Tag(18, [cbor.encode(header), {}, None, signature])))
    return cbor.encode(cbor.Tag(107, {2: cbor.encode(items), 3: found.manifest}))


def by(key: Key, release: SignedRelease, algorithm: int = cose.ESP256, kid: bytes | None = None) -> bytes:
    """The signature of a key over a release, under any algorithm and name."""
    header = cbor.encode({1: algorithm, 4: key.kid if kid is None else kid})
    return key.signature(manifest.envelope_of(release.envelope).to_be_signed(header))


class OtherCurve(Key):
    """A key of 64 bytes, x and y, on a curve that is none of ours."""

    def __init__(self) -> None:
        self._private = ec.generate_private_key(ec.SECP256K1())
        numbers = self._private.public_key().public_numbers()
        self.public = numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
        self.kid = credential.kid(self.public)

    def signature(self, message: bytes) -> bytes:
        while True:
            r, s = decode_dss_signature(self._private.sign(message, ec.ECDSA(hashes.SHA256())))
            if s <= ORDER // 2:
                return r.to_bytes(32, "big") + s.to_bytes(32, "big")


async def test_a_release_needs_two_of_three_keys_and_none_can_stand_for_another(emulated_boards: "Benches") -> None:
    authority = FakeAuthority()
    first, second = sorted((Key(), Key()), key=lambda key: key.kid)
    foreign = OtherCurve()
    authority.release_keys, authority.release_threshold = [first, second, foreign], 2
    stranger, order_key = Key(), authority.order_key
    good = SMALL.signed_by(first, second)

    def two(*signed: tuple[Key, int, bytes, bytes]) -> bytes:
        """key, algorithm, kid, signature"""
        made = [({1: algorithm, 4: kid}, signature) for _, algorithm, kid, signature in signed]
        return enveloped(good, *sorted(made, key=lambda one: bytes(one[0][4])))  # type: ignore[call-overload]  # the kid, of whatever type

    def true(key: Key, algorithm: int = cose.ESP256) -> tuple[Key, int, bytes, bytes]:
        return key, algorithm, key.kid, by(key, SMALL, algorithm)

    def as_if(key: Key, kid: bytes, release: SignedRelease = SMALL) -> tuple[Key, int, bytes, bytes]:
        return key, cose.ESP256, kid, by(key, release, kid=kid)

    zeros = (second, cose.ESP256, second.kid, bytes(64))
    high = bytearray(by(second, SMALL))
    high[32:] = (ORDER - int.from_bytes(high[32:], "big")).to_bytes(32, "big")
    attacks = {
        "nobody": (enveloped(good), NOT_SIGNED),
        "one of two": (SMALL.signed_by(first), NOT_SIGNED),
        "one key twice": (two(true(first), true(first)), NOT_THE_ORDERED_ONE),
        "one key under two names": (two(true(first), as_if(first, second.kid)), NOT_SIGNED),
        "one key and a name that nobody has": (two(true(first), as_if(first, b"\xff" * 8)), NOT_SIGNED),
        "one key and a stranger": (SMALL.signed_by(first, stranger), NOT_SIGNED),
        "a stranger under a name of ours": (two(true(first), as_if(stranger, second.kid)), NOT_SIGNED),
        "one key and the order key": (SMALL.signed_by(first, order_key), NOT_SIGNED),
        "a signature of another release": (two(true(first), as_if(second, second.kid, OTHER)), NOT_SIGNED),
        "a signature of zeros": (two(true(first), zeros), NOT_SIGNED),
        "the other form of a signature": (two(true(first), (*zeros[:3], bytes(high))), NOT_SIGNED),
        "a key of another curve": (two(true(first), true(foreign)), NOT_SIGNED),
        "a key of another curve under -7": (two(true(first), true(foreign, cose.ES256)), NOT_SIGNED),
        "another algorithm": (two(true(first), true(second, -8)), NOT_THE_ORDERED_ONE),
        "an algorithm that is a text": (
            enveloped(good, ({1: "none", 4: first.kid}, bytes(64))), NOT_THE_ORDERED_ONE
        ),
        "a signature without a name": (
            enveloped(good, ({1: cose.ESP256}, by(first, SMALL)), ({1: cose.ESP256, 4: second.kid}, by(second, SMALL))),
            NOT_SIGNED,
        ),
        "four signatures": (
            enveloped(good, *[({1: cose.ESP256, 4: bytes([n]) * 8}, bytes(64)) for n in range(4)]), NOT_THE_ORDERED_ONE
        ),
    }  # fmt: skip
    async with attacked(emulated_boards, authority) as victim:
        for what, (envelope, result) in attacks.items():
            assert await victim.judged(envelope) == result, what
        assert await victim.judged(two(true(first, cose.ES256), true(second))) is None, "-7 is another name of -9"
        assert await victim.judged(good) is None


async def test_a_key_that_a_newer_trust_has_retired_signs_nothing_any_more(emulated_boards: "Benches") -> None:
    """Also what it had signed and the board has staged: it is judged again before it can be tried."""
    async with attacked(emulated_boards) as victim:
        retired = victim.authority.release_key
        envelope = SMALL.signed_by(retired)
        await victim.staged(envelope)
        victim.authority.release_keys = [Key()]
        await victim.asker.give_trust(victim.authority.trust_file(2))
        sender = victim.sender(envelope)
        found = await sender.ask()
        assert found.phase != STAGED
        assert await victim.ordered(order.ARM, SMALL.digest, found.nonce, MUCH_LATER) == receipt.NOT_STAGED
        # What lies on flash is refused, and what the gateway sends then is, too.
        found = await sender.send_all()
        assert (found.phase, found.result) == (FAILED, (NOT_SIGNED, SMALL.digest))
        assert await victim.judged(envelope) == NOT_SIGNED
        await victim.staged(SMALL.signed_by(victim.authority.release_keys[0]))


async def test_a_release_for_others_is_refused_before_its_signature_is_looked_at(emulated_boards: "Benches") -> None:
    async with attacked(emulated_boards) as victim:
        key = victim.authority.release_key
        for wrong in ({"vendor": bytes(16)}, {"class_id": manifest.VENDOR}):
            for signed in (SMALL.signed_by(key, **wrong), SMALL.signed_by(**wrong)):
                digest = manifest.envelope_of(signed).digest[:16]
                sender = victim.sender(signed)
                assert (await told_to_stage(victim.operator, sender, digest=digest)).outcome == receipt.DONE
                count = victim.operations
                found = await sender.send_all()
                assert (found.phase, found.result) == (FAILED, (FOR_OTHERS, digest))
                assert victim.operations == count


# Who has ordered it ------------------------------------------------------------------------------------------------


async def test_an_order_is_no_release_and_a_release_is_no_order(emulated_boards: "Benches") -> None:
    async with attacked(emulated_boards) as victim:
        operator, key = victim.operator, victim.authority.release_key
        nonce = (await victim.sender(b"").ask()).nonce
        stage = operator.order(order.STAGE, [SMALL.digest, SMALL.sequence, nonce])
        count = victim.operations
        envelope = SMALL.signed_by(key)
        index_order = cbor.encode(cbor.Tag(107, {2: stage, 3: stage}))
        for given in (envelope, operator.order(order.STAGE, [SMALL.digest, 9, nonce], key=key, counter=7)):
            assert await operator.tell(given) == b""
        assert victim.operations == count
        for given in (stage, index_order, victim.authority.order_key.sign(cose.ORDER, envelope)):
            assert await victim.judged(given) == NOT_THE_ORDERED_ONE


async def test_an_order_counts_once_for_this_board_and_this_start_of_it(emulated_boards: "Benches") -> None:
    async with attacked(emulated_boards) as victim:
        operator, envelope = victim.operator, SMALL.signed_by(victim.authority.release_key)
        sender = victim.sender(envelope)
        first = (await sender.ask()).nonce
        stage = operator.order(order.STAGE, [SMALL.digest, SMALL.sequence, first])
        assert await operator.tell(operator.order(order.STAGE, [SMALL.digest, 9, first], board="board-02")) == b""
        assert (await sender.ask()).phase == IDLE
        answer = await operator.tell(stage)
        assert operator.read(stage, answer).outcome == receipt.DONE
        # The nonce has been used: for no further order, of any kind.
        second = (await sender.ask()).nonce
        assert second != first
        assert await victim.ordered(order.STAGE, SMALL.digest, SMALL.sequence, first) == receipt.OLD_NONCE
        assert await victim.ordered(order.ARM, SMALL.digest, first, MUCH_LATER) == receipt.OLD_NONCE
        assert (await sender.send_all()).phase == STAGED
        arm = operator.order(order.ARM, [SMALL.digest, second, MUCH_LATER])
        assert await victim.ordered(order.ARM, OTHER.digest, second, MUCH_LATER) == receipt.NOT_STAGED
        assert await victim.ordered(order.ABANDON, SMALL.digest) is None
        # Given up, it is not fetched because somebody repeats what was ordered before, nor is it tried.
        for replayed in (stage, arm):
            assert (await operator.told(replayed)).reason == receipt.OLD
        found = await sender.ask()
        assert (found.phase, found.staged, found.wanted) == (IDLE, None, None)
        # Nor after a start, in which the board remembers no nonce.
        victim.board.reset()
        await victim.board.usb.wait_for_print("start 3")
        victim.asker.session = None
        assert (await operator.told(stage)).reason == receipt.OLD
        assert await victim.ordered(order.STAGE, SMALL.digest, 9, second) == receipt.OLD_NONCE
        assert (await sender.ask()).phase == IDLE


async def test_an_order_to_give_up_ends_what_is_under_way_in_any_phase(emulated_boards: "Benches") -> None:
    async with attacked(emulated_boards) as victim:
        envelope = SMALL.signed_by(victim.authority.release_key)
        forged = SMALL.signed_by(Key())

        async def phase(of: str) -> Sender:
            sender = victim.sender(forged if of == "refused" else envelope)
            assert (await told_to_stage(victim.operator, sender)).outcome == receipt.DONE
            if of == "in the middle":
                await sender.until(lambda found: found.wanted is not None and found.wanted[1:3] == (3, 8184))
            elif of != "wanted":
                await sender.send_all()
            return sender

        for of in ("wanted", "in the middle", "staged", "refused"):
            sender = await phase(of)
            # Another release is given up: that is none of this one's business.
            before = await sender.ask()
            assert await victim.ordered(order.ABANDON, OTHER.digest) is None
            assert (await sender.ask()).phase in (before.phase, WORKING), of
            assert await victim.ordered(order.ABANDON, SMALL.digest) is None
            found = await sender.ask()
            assert (found.phase, found.wanted, found.staged) == (IDLE, None, None), of
            await sender.send(ENVELOPE, 0, 0, envelope)
            assert (await sender.ask()).phase == IDLE, of
            assert await victim.ordered(order.ARM, SMALL.digest, found.nonce, MUCH_LATER) == receipt.NOT_STAGED, of
        assert await victim.ordered(order.ABANDON, SMALL.digest) is None, "nothing was under way"
        await victim.board.power_off()
        assert image.read(victim.board.flash.image, "stage.0") is None


# Between the order and the trial -----------------------------------------------------------------------------------


async def test_a_file_that_changes_after_it_was_staged_is_not_tried(emulated_boards: "Benches") -> None:
    """TOCTOU: the flash is read again when the trial is ordered, and again when it begins (the loader)."""
    async with attacked(emulated_boards) as victim:
        sender = await victim.staged(SMALL.signed_by(victim.authority.release_key))
        flash = victim.board.flash.image
        content = bytearray(flash.read_bytes())
        (at,) = [at for at in range(0, len(content), 4096) if content.startswith(b"more of it", at)][:1]
        with flash.open("r+b") as chip:
            chip.seek(at + 5)
            chip.write(b"X")
        nonce = (await sender.ask()).nonce
        assert await victim.ordered(order.ARM, SMALL.digest, nonce, MUCH_LATER) == receipt.NOT_STAGED
        sender.wanted.clear()
        found = await sender.send_all()
        assert (found.phase, sender.wanted) == (STAGED, [INDEX, 3]), "it is fetched again, and no other file"
        assert await victim.ordered(order.ARM, SMALL.digest, found.nonce, MUCH_LATER) is None


async def test_nobody_confirms_or_disturbs_a_trial_but_its_gateway_by_its_name(emulated_boards: "Benches") -> None:
    old, _ = running(SETTINGS)
    release = SignedRelease(old.files, "0.2.0", sequence=2)
    armed = Record("a", "b", floor=1, slots={"a": old.entry, "b": release.entry}, confirmed=("a",))
    async with attacked(emulated_boards, other=release) as victim:
        asker, sender = victim.asker, victim.sender(b"", release)
        found = await sender.ask(told=release.digest)
        assert (found.phase, found.floor) == (IDLE, 1), "it is not on trial yet"
        await victim.board.power_off()
        image.write(victim.board.flash.image, armed.files())
        await victim.board.power_on()
        await victim.board.usb.wait_for_print("start 3")
        # In the clear, before there is a session: the confirmation of any stranger.
        answer = await asker.ask_in_the_clear(messages.Update(7, release.digest))
        assert answer is None or (isinstance(answer, messages.Refusal) and answer.reason == messages.SESSION_NEEDED)
        asker.session = None
        for told in (old.digest, SMALL.digest, bytes(16), None):
            found = await sender.ask(told=told)
            assert (found.phase, found.floor, found.wanted) == (TRIAL, 1, None)
        # A second install meanwhile: not ordered, not sent.
        count = victim.operations
        for item in (ENVELOPE, INDEX, 2):
            await sender.send(item, 0, 0, bytes(900))
        assert (await sender.ask()).phase == TRIAL
        assert victim.operations == count
        assert await victim.ordered(order.STAGE, SMALL.digest, 9, (await sender.ask()).nonce) == receipt.TRIAL_OPEN
        assert await victim.ordered(order.ARM, SMALL.digest, (await sender.ask()).nonce, 1) == receipt.TRIAL_OPEN
        assert await victim.ordered(order.ABANDON, SMALL.digest) is None
        assert (await sender.ask()).phase == TRIAL
        # Given up: the board is back, and a confirmation of that trial comes too late.
        assert await victim.ordered(order.ABANDON, release.digest) is None
        await victim.board.usb.wait_for_print("start 4")
        asker.session = None
        found = await sender.ask(told=release.digest)
        assert (found.phase, found.running, found.floor, found.result) == (IDLE, old.digest, 1, (5, release.digest))
