"""Real firmware, enrolled under a technician's grant while the authority is away; it reports before the merge.

The commands are processes, as people run them. What stands for the gateway is tests/firmware/questions.Asker, with a
credential that this authority's roster key has signed.
"""

import asyncio
import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING

from tests.firmware.questions import WITHIN_S, asking
from tests.typed import laterne

from laterne_protocol import cose, credential, edhoc_keys, messages, report_reading
from laterne_provisioning.grant_journal import MAX_ENTRY_BYTES, Enrol, entry_of
from laterne_provisioning.output import jwk

if TYPE_CHECKING:
    from laterne_emulator.bench import Bench
    from laterne_emulator.pytest_plugin import Benches

SETTINGS = {"report_s": 5, "sample_ms": 250}
GATEWAY = "gw-1"


async def first_report(bench: "Bench", name: str, board_id: str, held: bytes, authority: Path, folder: Path) -> bytes:
    """The first report of a board that holds this credential, fetched by a gateway of this authority."""
    claims = credential.credential_of(cose.parse(held, 512).payload)
    async with asking(bench.lines[name].path) as asker:
        public, signed = folder / "gateway.jwk", folder / "gateway.cbor"
        public.write_text(json.dumps(jwk(asker.gateway.key.public)))
        await laterne(*("gateway", "enrol", "--id", GATEWAY, "--key", public, "--authority", authority, "-o", signed))
        asker.gateway.credential = signed.read_bytes()
        asker.board = edhoc_keys.party(board_id, claims.agree_key)
        async with asyncio.timeout(WITHIN_S):
            while True:
                answer = await asker.ask(lambda number: messages.Poll(number, None, 0))
                assert isinstance(answer, messages.ReportAnswer)
                if answer.reports:
                    found = report_reading.report_of(cose.parse(answer.reports[0], 1024).payload)
                    assert (found.board, found.sequence) == (board_id, 1)
                    assert found.previous == credential.digest(held)
                    return answer.reports[0]
                await asyncio.sleep(min(0.2, answer.due_ms / 1000))


async def test_boards_enrolled_in_the_field_are_merged_and_their_first_reports_verify(
    emulated_boards: "Benches", tmp_path: Path
) -> None:
    bench = await emulated_boards(boards=3, settings=SETTINGS, paced=False)
    ports = [bench.lines[name].path for name in bench.boards]
    office, key, grant = tmp_path / "office", tmp_path / "key", tmp_path / "grant"
    await laterne("init", office, "--no-passphrase")
    (tmp_path / "key.jwk").write_text(json.dumps(await laterne("grant", "key", "-o", key, "--no-passphrase")))
    issued = await laterne(
        *("grant", "issue", "--technician", "M. Lindqvist", "--key", tmp_path / "key.jwk", "--site", "the harbour"),
        *("--ids", "LE-0101:LE-0109", "--number", 2, "--authority", office, "-o", grant, "--json"),
    )
    old = tmp_path / "old"
    await laterne(
        *("grant", "issue", "--technician", "M. Lindqvist", "--key", tmp_path / "key.jwk", "--site", "the harbour"),
        *("--ids", "*", "--number", 2, "--since", "2026-01-01", "--days", 1, "--authority", office, "-o", old),
    )
    away = tmp_path / "far away"
    office.rename(away)
    in_the_field = ("board", "enrol", "--grant", grant, "--technician-key", key)
    shown = [
        await laterne(*in_the_field, "--port", port, "--id", f"LE-010{number}", "--post", f"P-{number}", "--json")
        for number, port in enumerate(ports[:2], 1)
    ]
    for board_id, words in (("LE-0103", "the grant is for 2 boards"), ("LE-0201", "for boards LE-0101:LE-0109")):
        assert words in await laterne(*in_the_field, "--port", ports[2], "--id", board_id, code=1)
    over = ("board", "enrol", "--grant", old, "--technician-key", key, "--port", ports[2], "--id", "LE-0103")
    assert "the grant is over" in await laterne(*over, code=1)
    again = await laterne(*in_the_field, "--port", ports[0], "--id", "LE-0101", "--json")
    assert (again["already"], again["credential"]) == (True, shown[0]["credential"])
    away.rename(office)
    reports = tmp_path / "reports"
    held = credentials_in(grant.with_suffix(".journal"))
    reports.write_bytes(
        b"".join(
            [
                await first_report(bench, name, f"LE-010{number}", one, office, tmp_path)
                for number, (name, one) in enumerate(zip(bench.boards, held, strict=False), 1)
            ]
        )
    )
    assert "2 refused" in await laterne("verify", reports, "--authority", office, code=1)
    journal = grant.with_suffix(".journal")
    lines = journal.read_bytes().splitlines(keepends=True)
    forged, cut, stranger = tmp_path / "forged", tmp_path / "cut", tmp_path / "stranger"
    forged.write_bytes(b"".join([*lines[:1], *lines[2:]]))
    cut.write_bytes(b"".join(lines[:2]))
    await laterne("init", stranger, "--no-passphrase")
    for wrong, whose, words in ((forged, office, "does not follow"), (journal, stranger, "registry knows")):
        assert words in await laterne("grant", "merge", wrong, "--authority", whose, code=1)
    merged = await laterne("grant", "merge", journal, "--authority", office, "--accept", "--json")
    assert (merged["merged"], merged["refused"], merged["grant"]) == (2, 0, issued["number"])
    assert "cut off" in await laterne("grant", "merge", cut, "--authority", office, code=1)
    again = await laterne("grant", "merge", journal, "--authority", office, "--json")
    assert (again["merged"], again["already"], again["refused"]) == (0, 2, 0)
    found = await laterne("verify", reports, "--authority", office, "--json")
    assert (found["ok"], found["reports_verified"]) == (True, 2)
    listed = await laterne("board", "list", "--authority", office, "--json")
    assert [(row["id"], row["state"], row["post"]) for row in listed] == [
        ("LE-0101", "enrolled", "P-1"),
        ("LE-0102", "enrolled", "P-2"),
    ]
    assert [row["credential"] for row in listed] == [row["credential"] for row in shown]
    roster = await laterne(
        "roster", "export", "--gateway", GATEWAY, "--authority", office, "-o", tmp_path / "r", "--json"
    )
    assert roster["boards"] == ["LE-0101", "LE-0102"]
    await laterne("audit", "verify", "--authority", office)


def credentials_in(journal: Path) -> list[bytes]:
    """The credentials in a journal, as the boards hold them."""
    said = [
        entry_of(cose.parse(base64.b64decode(line), MAX_ENTRY_BYTES).payload).said
        for line in journal.read_bytes().splitlines()
    ]
    return [one.credential for one in said if isinstance(one, Enrol)]
