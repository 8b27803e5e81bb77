"""python-cwt, an implementation of others, believes the credentials, rosters and reports that we make.

Its pins clash with ours, so it runs in the environment of the oracles (tests/protocol/oracles.py).
"""

from pathlib import Path

from tests.protocol.cwt_opinion import judged
from tests.provisioning.commands import laterne
from tests.provisioning.fake_board import FakeBoard

from laterne_protocol import cose, trust
from laterne_provisioning.authority import open_authority


def test_cwt_believes_what_we_and_the_boards_sign_and_nothing_under_another_domain(
    authority: Path, boards: list[FakeBoard], tmp_path: Path
) -> None:
    laterne("roster", "export", "--gateway", "gw", "--authority", authority, "-o", tmp_path / "r")
    keys = open_authority(authority).trusted.keys
    assert boards[0].credential is not None
    good = [
        (boards[0].credential, keys[trust.ENROLMENT][0], cose.CREDENTIAL),
        ((tmp_path / "r").read_bytes(), keys[trust.ROSTER][0], cose.ROSTER),
        (boards[0].next_report(), boards[0].key.public, cose.REPORT),
    ]
    for (body, _, _), verdict in zip(good, judged(good), strict=True):
        assert verdict == {"payload": cose.parse(body, 65536).payload.hex()}
    wrong = [(body, key, cose.TRUST) for body, key, _ in good] + [(good[2][0], boards[1].key.public, cose.REPORT)]
    for verdict in judged(wrong):
        assert "error" in verdict
