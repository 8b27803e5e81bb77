"""`laterne verify` on files: every byte of a report counts, and what is wrong is named."""

import json
import shlex
import subprocess
from pathlib import Path

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from tests.provisioning.commands import LATERNE, WITHIN_S, laterne
from tests.provisioning.fake_board import ORDER, FakeBoard, Key

from laterne_protocol import cose, credential, report
from laterne_provisioning import primitives
from laterne_provisioning.report_files import pieces
from laterne_provisioning.verifier import MAX_SEARCHES, KnownBoard, Refused, Verified, Verifier


def known(board: FakeBoard) -> KnownBoard:
    assert board.board is not None
    assert board.credential is not None
    return KnownBoard(board.board, board.key.public, credential.digest(board.credential))


@pytest.fixture
def enrolled() -> list[FakeBoard]:
    """Two boards with ids and credentials; the verifier needs no more of an authority."""
    boards = []
    for name in ("LE-0001", "LE-0002"):
        board = FakeBoard()
        board.board, board.credential = name, b"the credential of " + name.encode()
        boards.append(board)
    return boards


def test_good_reports_are_verified_with_all_their_readings(
    authority: Path, boards: list[FakeBoard], tmp_path: Path
) -> None:
    path = tmp_path / "reports"
    path.write_bytes(b"".join(board.next_report([100, 200, -5]) for _ in range(3) for board in boards))
    found = laterne("verify", path, "--authority", authority, "--json").json()
    assert (found["ok"], found["reports_verified"], found["readings"]) == (True, 6, 18)
    assert [(row["board"], row["first"], row["last"], row["missing"]) for row in found["boards"]] == [
        ("LE-0001", 1, 3, []),
        ("LE-0002", 1, 3, []),
    ]
    table = laterne("verify", path, "--authority", authority).out
    assert boards[0].kid.hex() in table
    assert "6 reports verified with 18 readings, 0 repeated, 0 refused" in table


def test_a_roster_and_a_trust_file_are_enough(authority: Path, boards: list[FakeBoard], tmp_path: Path) -> None:
    path, roster, trust = tmp_path / "one", tmp_path / "roster", tmp_path / "trust"
    path.write_bytes(boards[0].next_report())
    laterne("roster", "export", "--gateway", "gw", "--authority", authority, "-o", roster)
    laterne("trust", "export", "--authority", authority, "-o", trust)
    laterne("verify", path, "--roster", roster, "--trust", trust)
    damaged = bytearray(roster.read_bytes())
    damaged[-1] ^= 1
    roster.write_bytes(damaged)
    assert "no roster that can be believed" in laterne("verify", path, "--roster", roster, "--trust", trust, code=2).err


def test_anyone_can_check_with_plain_libraries(authority: Path, boards: list[FakeBoard]) -> None:
    shown = laterne("board", "list", "--authority", authority, "--json").json()
    for row, board in zip(shown, boards, strict=True):
        x, y = (int.from_bytes(_unpadded(row["sign_key"][name]), "big") for name in ("x", "y"))
        key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
        tag = cbor2.loads(board.next_report())
        protected, unprotected, payload, signature = tag.value
        assert (tag.tag, unprotected, cbor2.loads(protected)[1]) == (18, {}, -9)
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        signed = cbor2.dumps(["Signature1", protected, b"laterne/report/1", payload])
        key.verify(utils.encode_dss_signature(r, s), signed, ec.ECDSA(SHA256()))
        assert cbor2.loads(payload)[1] == row["id"]


def _unpadded(text: str) -> bytes:
    import base64

    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_one_flipped_bit_anywhere_is_refused_with_the_board_the_sequence_and_the_reason(
    enrolled: list[FakeBoard],
) -> None:
    board = enrolled[0]
    board.skip_reports(299)
    good = board.next_report([2130, 2131, 2129], [[250, 260, report.BACKLOG_FULL]])
    boards = [known(one) for one in enrolled]
    assert isinstance(Verifier(boards).check(good), Verified)
    at_sequence = good.index(b"LE-0001") + 8  # the key 2, then 19 01 2c
    for position in range(len(good)):
        for bit in range(8):
            damaged = bytearray(good)
            damaged[position] ^= 1 << bit
            verdict = Verifier(boards).check(bytes(damaged))
            assert isinstance(verdict, Refused), (position, bit)
            assert verdict.reason
            # Who it was can be told from the id, or from the kid.
            assert verdict.board == "LE-0001", (position, bit, verdict)
            if not at_sequence <= position < at_sequence + 3:
                assert verdict.sequence == 300, (position, bit, verdict)
            # By the topic it is always known.
            assert Verifier(boards).check(bytes(damaged), "LE-0001").board == "LE-0001"


def test_a_flipped_byte_in_a_file_is_told_with_its_place_and_hides_nothing_else(
    authority: Path, boards: list[FakeBoard], tmp_path: Path
) -> None:
    reports = [boards[0].next_report() for _ in range(4)]
    start = len(reports[0])
    path = tmp_path / "reports"
    for position in (0, 1, 2, 9, 18, 20, 29, len(reports[1]) - 1):
        damaged = bytearray(b"".join(reports))
        damaged[start + position] ^= 0x20
        path.write_bytes(damaged)
        done = laterne("verify", path, "--authority", authority, "--json", code=1).json()
        assert done["reports_verified"] == 3
        assert done["boards"][0]["missing"] == [[2, 2]]
        (refused,) = done["refused"]
        assert (refused["board"], refused["sequence"]) == ("LE-0001", 2)
        assert refused["source"].endswith(f"bytes {start} to {start + len(reports[1]) - 1}")
    shown = laterne("verify", path, "--authority", authority, code=1).out
    assert "LE-0001" in shown
    assert "the signature is not that of LE-0001" in shown


def test_a_report_signed_by_another_boards_key_names_that_board(enrolled: list[FakeBoard]) -> None:
    first, second = enrolled
    payload = cose.parse(first.next_report(), 960).payload
    for kid in (credential.kid(second.key.public), credential.kid(first.key.public)):
        forged = second.key.sign_object(cose.REPORT, payload, kid)
        verdict = Verifier([known(first), known(second)]).check(forged)
        assert isinstance(verdict, Refused)
        assert (verdict.board, verdict.sequence) == ("LE-0001", 1)
        assert verdict.reason == "it is signed by the key of LE-0002"


def test_objects_that_are_no_reports_and_signatures_of_nobody_are_refused(enrolled: list[FakeBoard]) -> None:
    first, second = enrolled
    signed = cose.parse(first.next_report(), 960)
    boards = [known(first), known(second)]
    high_s = ORDER - int.from_bytes(signed.signature[32:], "big")
    cases = {
        "no signed object": b"hello",
        "the signature is not that of LE-0001": Key().sign_object(cose.REPORT, signed.payload),
        "not in its low-s form": cose.assemble(
            signed.protected, signed.payload, signed.signature[:32] + high_s.to_bytes(32, "big")
        ),
        "the signature is not that of LE-0001: ": first.key.sign_object(cose.ROSTER, signed.payload),
        "it names another key": first.key.sign_object(cose.REPORT, signed.payload, credential.kid(second.key.public)),
        "what LE-0001 signed is no report": first.key.sign_object(cose.REPORT, b"\xa0"),
    }
    for reason, body in cases.items():
        verdict = Verifier(boards).check(body)
        assert isinstance(verdict, Refused)
        assert reason in verdict.reason
    stranger = FakeBoard()
    stranger.board, stranger.credential = "LE-0009", b"x"
    verdict = Verifier(boards).check(stranger.next_report())
    assert isinstance(verdict, Refused)
    assert (verdict.board, verdict.claims) == ("LE-0009", "LE-0009")
    assert "LE-0009 is not among the boards known here" in verdict.reason
    verdict = Verifier(boards).check(first.next_report(), "LE-0002")
    assert isinstance(verdict, Refused)
    assert "it is a report of LE-0001, sent under another name" in verdict.reason


def test_a_flood_of_forged_reports_does_not_try_every_key_for_each(
    enrolled: list[FakeBoard], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = enrolled
    tried: list[bytes] = []
    is_signature = primitives.is_signature

    def counted(key: bytes, signed: bytes, signature: bytes) -> bool:
        tried.append(key)
        return is_signature(key, signed, signature)

    monkeypatch.setattr(primitives, "is_signature", counted)
    verifier = Verifier([known(first), known(second), *(KnownBoard(f"X-{n}", Key().public, b"") for n in range(30))])
    forged = Key().sign_object(cose.REPORT, cose.parse(first.next_report(), 960).payload, first.kid)
    reasons = []
    for _ in range(MAX_SEARCHES + 20):
        verdict = verifier.check(forged)
        assert isinstance(verdict, Refused)
        reasons.append(verdict.reason)
    assert len(tried) <= MAX_SEARCHES * 34 + 20 * 2
    assert "first 32 refused reports only" not in reasons[MAX_SEARCHES - 1]
    assert "first 32 refused reports only" in reasons[MAX_SEARCHES]
    # The key that the kid names is still tried.
    payload = cose.parse(first.next_report(), 960).payload
    verdict = verifier.check(second.key.sign_object(cose.REPORT, payload, credential.kid(second.key.public)))
    assert isinstance(verdict, Refused)
    assert verdict.reason == "it is signed by the key of LE-0002"


def test_gaps_repetitions_and_any_order_are_told_apart(enrolled: list[FakeBoard]) -> None:
    board = enrolled[0]
    bodies = [board.next_report() for _ in range(9)]
    bodies.append(board.next_report(gaps=[[5, 6, report.BACKLOG_FULL]]))
    verifier = Verifier([known(board)])
    for number in (1, 2, 9, 8, 2, 10):
        assert isinstance(verifier.check(bodies[number - 1]), Verified)
    (account,) = verifier.accounts()
    assert (account.reports, account.repeated, account.first, account.last) == (5, 1, 1, 10)
    assert account.missing == [(3, 4), (7, 7)]
    assert account.lost == [(5, 6, report.BACKLOG_FULL)]
    for number in (7, 4, 3):
        verifier.check(bodies[number - 1])
    assert verifier.accounts()[0].missing == []


def test_a_second_history_of_one_key_is_refused_as_a_clone(enrolled: list[FakeBoard]) -> None:
    board = enrolled[0]
    clone = FakeBoard(board.key)
    clone.board, clone.credential = board.board, board.credential
    verifier = Verifier([known(board)])
    for _ in range(3):
        assert isinstance(verifier.check(board.next_report([1])), Verified)
    for _ in range(3):
        verdict = verifier.check(clone.next_report([2]))
        assert isinstance(verdict, Refused)
        assert "its key is in two places" in verdict.reason
    verdict = verifier.check(clone.next_report([2]))
    assert isinstance(verdict, Refused)
    assert verdict.reason == "it does not follow the report 3 that was seen"
    clone.credential = b"of another enrolment"
    clone.skip_reports(0)
    other = FakeBoard(board.key)
    other.board, other.credential = board.board, b"another credential"
    verdict = Verifier([known(board)]).check(other.next_report())
    assert isinstance(verdict, Refused)
    assert "does not begin with the credential" in verdict.reason


def test_a_file_is_cut_into_pieces_whatever_the_size_of_its_reads(enrolled: list[FakeBoard]) -> None:
    good = [enrolled[0].next_report() for _ in range(20)]
    junk = b"\xd2\x84\x4d not one " * 500
    data = b"".join(good[:10]) + junk + b"".join(good[10:]) + good[0][:-5]

    def reader() -> object:
        left = [data]

        def read(size: int) -> bytes:
            taken, left[0] = left[0][: min(size, 7)], left[0][min(size, 7) :]
            return taken

        return read

    read = reader()
    assert callable(read)
    found = list(pieces(read))
    assert b"".join(piece.body for piece in found) == data
    assert [piece.body for piece in found if piece.readable] == good
    assert [piece.start for piece in found] == [sum(len(p.body) for p in found[:n]) for n in range(len(found))]


def test_bad_usage_is_a_sentence(authority: Path, tmp_path: Path) -> None:
    report_file = tmp_path / "r"
    report_file.write_bytes(b"")
    url = "mqtt://127.0.0.1:1"
    for arguments, says in (
        ([], "what is to be verified"),
        ([report_file], "Whose signatures count?"),
        ([report_file, "--authority", authority, "--broker", url], "what is to be verified"),
        ([report_file, "--authority", authority, "--seconds", "3"], "belong to --broker"),
        ([report_file, "--roster", report_file], "Whose signatures count?"),
        ([report_file, "--authority", authority, "--json", "--json-lines"], "contradict"),
        ([report_file, "--authority", tmp_path], "There is no authority"),
        ([tmp_path / "gone", "--authority", authority], "cannot be read"),
        (["--broker", "http://x", "--authority", authority], "is no broker"),
        (["--broker", "mqtt://a:b@x", "--authority", authority], "--password-file"),
        (["--broker", url, "--ca-file", report_file, "--authority", authority], "belong to mqtts"),
    ):
        assert says in laterne("verify", *arguments, code=2).err
    assert "cannot be used" in laterne("verify", "--broker", url, "--authority", authority, code=1).err
    assert "No report was verified" in laterne("verify", report_file, "--authority", authority, code=1).err


def test_a_board_of_which_nothing_came_is_shown_and_is_no_error(
    authority: Path, boards: list[FakeBoard], tmp_path: Path
) -> None:
    path = tmp_path / "r"
    path.write_bytes(boards[0].next_report())
    found = laterne("verify", path, "--authority", authority, "--json").json()
    assert [(row["board"], row["reports"], row["first"]) for row in found["boards"]] == [
        ("LE-0001", 1, 1),
        ("LE-0002", 0, None),
    ]
    (row,) = [line for line in laterne("verify", path, "--authority", authority).out.splitlines() if "LE-0002" in line]
    assert "nothing seen" in row
    laterne("board", "revoke", "LE-0002", "--reason", "stolen", "--authority", authority)
    assert "LE-0002" not in laterne("verify", path, "--authority", authority).out


def test_a_board_that_was_overtaken_under_its_key_is_an_error(
    authority: Path, boards: list[FakeBoard], tmp_path: Path
) -> None:
    reports = [boards[0].next_report() for _ in range(3)]
    boards[0].skip_reports(62)
    reports.append(boards[0].next_report(gaps=[[4, 65, report.OVERTAKEN]]))
    path = tmp_path / "r"
    path.write_bytes(b"".join([*reports, boards[1].next_report()]))
    found = laterne("verify", path, "--authority", authority, "--json", code=1).json()
    assert (found["ok"], found["reports_verified"], found["boards"][0]["missing"]) == (False, 5, [])
    assert "LE-0001: it has left out numbers" in laterne("verify", path, "--authority", authority, code=1).out
    path.write_bytes(b"".join([*reports[:3], boards[1].next_report()]))
    assert laterne("verify", path, "--authority", authority, "--json").json()["ok"]


def test_starts_of_a_board_between_its_reports_are_told_in_whatever_order_they_come(
    authority: Path, boards: list[FakeBoard], tmp_path: Path
) -> None:
    reports = []
    for boot, cut_ms in ((1, 0), (1, 0), (2, 30_000), (5, 90_000)):  # three starts before it could send one again
        boards[0].boot = boot
        reports.append(boards[0].next_report(cut_ms=cut_ms))
    path = tmp_path / "r"
    path.write_bytes(b"".join([reports[3], *reports[:3], boards[1].next_report()]))
    found = laterne("verify", path, "--authority", authority, "--json").json()
    assert [(row["starts"], row["cut_ms"]) for row in found["boards"]] == [(4, 120_000), (0, 0)]
    head, row = laterne("verify", path, "--authority", authority).out.splitlines()[:2]
    assert row[head.index("starts") :].startswith("4 (cost <= 120 s)")


def test_the_release_of_a_board_is_the_one_that_its_newest_report_names(
    authority: Path, boards: list[FakeBoard], tmp_path: Path
) -> None:
    old, new = b"\x01" * 8, b"\x02" * 8
    said: list[tuple[bytes, bool] | None] = [(old, False), None, (new, True), (new, False), None]
    reports = [boards[0].next_report(release=release) for release in said]
    path = tmp_path / "r"
    path.write_bytes(b"".join([*reports[3:], *reports[:3], boards[1].next_report()]))
    found = laterne("verify", path, "--authority", authority, "--json").json()
    assert [(row["release"], row["trial"]) for row in found["boards"]] == [(new.hex(), False), (None, None)]
    lines = laterne("verify", path, "--authority", authority, "--json-lines").out.splitlines()
    named = [(line["release"], line["trial"]) for line in map(json.loads, lines[:5])]
    assert named == [(new.hex(), False), (None, None), (old.hex(), False), (None, None), (new.hex(), True)]
    path.write_bytes(b"".join(reports[:3]))
    head, row = laterne("verify", path, "--authority", authority).out.splitlines()[:2]
    assert row[head.index("release") :].startswith(f"{new.hex()} (on trial)")


def test_a_disk_that_is_full_is_told_of_the_file_that_could_not_be_written(
    authority: Path, boards: list[FakeBoard], tmp_path: Path
) -> None:
    path, kept = tmp_path / "r", tmp_path / "kept"
    path.write_bytes(b"".join(boards[0].next_report() for _ in range(9)))
    # A limit of 1 kB for each file stands for the disk: write(2) fails in the same place.
    command = shlex.join([*LATERNE, "verify", *map(str, (path, "--authority", authority, "--save", kept))])
    done = subprocess.run(["bash", "-c", f"ulimit -f 1; {command}"], capture_output=True, text=True, timeout=WITHIN_S)
    assert "Traceback" not in done.stderr, done.stderr
    assert f"{kept} cannot be written: File too large." in done.stderr
    assert "cannot be read" not in done.stderr
    assert done.returncode == 1


def test_json_lines_say_one_report_each_and_close_with_a_summary(
    authority: Path, boards: list[FakeBoard], tmp_path: Path
) -> None:
    path, kept = tmp_path / "r", tmp_path / "kept"
    good = boards[0].next_report([2130, 2131])
    path.write_bytes(good + good[:-1] + bytes([good[-1] ^ 1]) + good)
    done = laterne("verify", path, "--authority", authority, "--json-lines", "--save", kept, code=1)
    first, second, third, summary = [json.loads(line) for line in done.out.splitlines()]
    assert (first["board"], first["sequence"], first["readings"], first["ok"]) == ("LE-0001", 1, 2, True)
    assert first["last"] == {"air temperature": {"value": 21.31, "unit": "Cel"}}
    assert (second["ok"], second["board"], second["sequence"]) == (False, "LE-0001", 1)
    assert (third["ok"], third["repeated"]) == (True, True)
    assert summary["event"] == "summary"
    assert (summary["reports_verified"], summary["reports_refused"], summary["reports_repeated"]) == (1, 1, 1)
    assert kept.read_bytes() == good
    assert "Name a new file" in laterne("verify", path, "--authority", authority, "--save", kept, code=2).err
