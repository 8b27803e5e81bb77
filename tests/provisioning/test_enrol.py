"""Enrolment: a board gets its id once, whatever happens on the way."""

import fcntl
import itertools
import os
import signal
from pathlib import Path

import pytest
from tests.provisioning.commands import enrol, laterne, running
from tests.provisioning.fake_board import WAIT_S, FakeBoard, Key

from laterne_protocol import cose, credential, trust
from laterne_provisioning.authority import open_authority
from laterne_provisioning.primitives import is_signature


def test_an_enrolled_board_has_its_id_and_a_credential_that_the_trust_file_vouches_for(
    authority: Path, board: FakeBoard
) -> None:
    enrol(board, "LE-0001", authority, "--post", "P-17", "--latitude", "48.1374", "--longitude", "-11.5")
    assert board.board == "LE-0001"
    assert board.credential is not None
    signed = cose.parse(board.credential, credential.MAX_CREDENTIAL_BYTES)
    (enrolment,) = open_authority(authority).trusted.keys[trust.ENROLMENT]
    claims = credential.credential_of(
        cose.verify(signed, cose.CREDENTIAL, lambda message, signature: is_signature(enrolment, message, signature))
    )
    assert signed.kid == credential.kid(enrolment)
    assert (claims.authority, claims.board, claims.model, claims.tier) == ("Stadtwerke", "LE-0001", "pico", 0)
    assert (claims.sign_key, claims.agree_key) == (board.key.public, board.agree_key.public)
    (shown,) = laterne("board", "list", "--authority", authority, "--json").json()
    assert (shown["id"], shown["state"], shown["post"]) == ("LE-0001", "enrolled", "P-17")
    assert (shown["latitude"], shown["longitude"]) == (48.1374, -11.5)
    assert shown["kid"] == board.kid.hex()
    assert board.trust == open_authority(authority).trusted.to_payload(), "it was told whom to believe"


def test_enrol_json_is_the_board_and_nothing_else_on_stdout(authority: Path, board: FakeBoard) -> None:
    done = enrol(board, "LE-0001", authority, "--json")
    assert done.err == ""
    shown = done.json()
    assert shown.pop("already") is False
    assert shown == laterne("board", "show", "LE-0001", "--authority", authority, "--json").json()
    assert shown["tier"] == "software"
    assert shown["sign_key"].keys() == {"kty", "crv", "x", "y"}


def test_enrolling_again_is_done_already(authority: Path, board: FakeBoard) -> None:
    enrol(board, "LE-0001", authority)
    former = board.credential
    done = enrol(board, "LE-0001", authority, "--json")
    assert done.json()["already"] is True
    assert board.credential == former


@pytest.mark.parametrize("acted", [False, True], ids=["before it acts", "after it has acted"])
@pytest.mark.parametrize("message", [1, 2, 3, 4], ids=["hello", "prove", "trust", "enrol"])
def test_a_command_killed_when_the_board_has_a_message_is_finished_by_the_same_command(
    authority: Path, board: FakeBoard, message: int, acted: bool
) -> None:
    board.stop_at = (message, acted)
    arguments = ("board", "enrol", "--port", board.port, "--id", "LE-0001", "--authority", authority)
    with running(*arguments, quiet=True) as command:
        assert board.stopped.wait(WAIT_S)
        command.send_signal(signal.SIGKILL)
    shown = laterne("board", "list", "--authority", authority, "--json").json()
    # The row is there before the board gets anything, and says no more than is known.
    assert [row["state"] for row in shown] == (["pending"] if message >= 3 else [])
    given = [row["credential"] for row in shown]
    board.go_on()
    enrol(board, "LE-0001", authority)
    (row,) = laterne("board", "list", "--authority", authority, "--json").json()
    assert row["state"] == "enrolled"
    assert given in ([], [row["credential"]])
    assert board.credential is not None
    assert row["credential_digest"] == credential.digest(board.credential).hex()
    whole = ["Hello", "Prove", "Trust", "Enrol"]
    assert board.asked == (["Hello", "Enrol"] if (message, acted) == (4, True) else whole)


def test_lost_answers_and_a_board_that_is_still_making_its_keys_are_waited_for(
    authority: Path, board: FakeBoard
) -> None:
    board.babble = b"boot: rp2\r\n\x00" + bytes(range(256))
    board.says_kid = False
    board.lose_answers = 1
    board.busy_answers = 1
    enrol(board, "LE-0001", authority)
    assert board.board == "LE-0001"


def test_a_board_whose_firmware_knows_no_sessions_is_to_be_flashed_first(authority: Path, board: FakeBoard) -> None:
    enrol(board, "LE-0001", authority)
    board.speaks_clearly = True
    assert "Flash it with a newer release" in enrol(board, "LE-0001", authority, code=1).err


def test_a_port_that_is_not_there_is_named(authority: Path, tmp_path: Path) -> None:
    done = laterne("board", "enrol", "--port", tmp_path / "ttyUSB9", "--id", "A", "--authority", authority, code=2)
    assert "There is no port" in done.err
    plain = tmp_path / "plain"
    plain.write_text("")
    done = laterne("board", "enrol", "--port", plain, "--id", "A", "--authority", authority, code=2)
    assert "is no serial port" in done.err


def test_a_port_that_the_gateway_holds_is_left_alone(authority: Path, board: FakeBoard) -> None:
    held = os.open(board.port, os.O_RDWR | os.O_NOCTTY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        done = enrol(board, "LE-0001", authority, code=2)
        assert f"(process {os.getpid()})" in done.err, "who has it is named"
    finally:
        os.close(held)
    assert board.asked == []


def test_a_board_that_does_not_answer_leaves_nothing_behind(authority: Path, board: FakeBoard) -> None:
    board.silent = True
    done = enrol(board, "LE-0001", authority, code=1)
    assert f"No board answers on {board.port}" in done.err
    assert laterne("board", "list", "--authority", authority, "--json").json() == []


def test_a_board_of_this_authority_is_not_enrolled_under_a_second_id(authority: Path, board: FakeBoard) -> None:
    enrol(board, "LE-0001", authority)
    done = enrol(board, "LE-0002", authority, code=1)
    assert "is enrolled already, and not as LE-0002" in done.err
    board.board = board.credential = None  # wiped, but its keys are the same
    done = enrol(board, "LE-0002", authority, code=1)
    assert "stands in the registry as LE-0001 (enrolled)" in done.err
    enrol(board, "LE-0001", authority)
    assert board.board == "LE-0001"


def test_a_board_of_another_authority_is_refused(authority: Path, board: FakeBoard, tmp_path: Path) -> None:
    laterne("init", tmp_path / "other", "--no-passphrase")
    enrol(board, "LE-0001", tmp_path / "other")
    done = enrol(board, "LE-0001", authority, code=1)
    assert "is enrolled already, and not as LE-0001 by this authority" in done.err
    assert laterne("board", "list", "--authority", authority, "--json").json() == []


def test_an_id_belongs_to_one_key(authority: Path, board: FakeBoard) -> None:
    enrol(board, "LE-0001", authority)
    with FakeBoard() as other:
        done = enrol(other, "LE-0001", authority, code=1)
        assert other.credential is None
        enrol(other, "LE-0002", authority)
        assert "not as LE-0001 by this" in enrol(other, "LE-0001", authority, code=1).err
    assert "The id LE-0001 belongs to another board (enrolled" in done.err


def test_a_board_that_cannot_prove_its_keys_gets_nothing(authority: Path) -> None:
    for cheat in ("another key", "an old nonce"):
        with FakeBoard() as board:
            if cheat == "another key":
                board.signs_with = Key()
            else:
                board.nonce_instead = bytes(16)
            done = enrol(board, "LE-0001", authority, code=1)
            assert "has not proven its keys" in done.err
            assert board.asked == ["Hello", "Prove"]
    assert laterne("board", "list", "--authority", authority, "--json").json() == []


def test_a_board_that_stores_something_else_stays_pending(authority: Path, board: FakeBoard) -> None:
    board.forget_digest = True
    assert "stays pending" in enrol(board, "LE-0001", authority, code=1).err
    assert laterne("board", "show", "LE-0001", "--authority", authority, "--json").json()["state"] == "pending"


@pytest.mark.parametrize("wrong", ["", "-a", "a/b", "x" * 33, "é", "order"])
def test_an_id_that_fits_no_topic_is_refused_before_anything_is_asked(
    authority: Path, board: FakeBoard, wrong: str
) -> None:
    done = laterne("board", "enrol", "--port", board.port, f"--id={wrong}", "--authority", authority, code=2)
    assert "will not do" in done.err
    assert board.asked == []


@pytest.mark.parametrize(
    "options",
    [("--post", "P", "--latitude", "1"), ("--latitude", "1", "--longitude", "2"), ("--post", "P", "--latitude", "nan")],
)
def test_half_a_place_is_refused(authority: Path, board: FakeBoard, options: tuple[str, ...]) -> None:
    done = enrol(board, "LE-0001", authority, *options, code=2)
    assert done.out == ""
    assert board.asked == []


def test_a_missing_authority_is_named(board: FakeBoard, tmp_path: Path) -> None:
    done = enrol(board, "LE-0001", tmp_path / "nowhere", code=2)
    assert "There is no authority in" in done.err
    assert "laterne init" in done.err


def test_words_of_two_kids_differ_and_are_short() -> None:
    from laterne_provisioning.words import words

    seen = {words(bytes([first, second])) for first, second in itertools.product(range(256), range(256))}
    assert len(seen) == 65536
    assert words(bytes(8)) == "balbal-balbal-balbal-balbal"


def test_what_a_board_says_of_itself_does_not_turn_the_words_of_its_key_around(
    authority: Path, board: FakeBoard
) -> None:
    """U+202E makes a terminal show what follows from right to left: two people then compare other words."""
    board.model = "pico\u202e"
    done = enrol(board, "LE-0001", authority)
    shown = done.out + laterne("board", "show", "LE-0001", "--authority", authority).out
    listed = laterne("board", "list", "--authority", authority, "--json").out
    assert "pico\\u202e" in shown
    assert "\u202e" not in done.err + shown + listed
