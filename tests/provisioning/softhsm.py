"""A token of SoftHSM2 (Debian: softhsm2) in a directory of the test's own: PKCS#11 without a device.

Its keys are made with python-pkcs11, as an operator would with pkcs11-tool. Where SoftHSM2 or python-pkcs11 is missing
the tests that want a token are skipped with that reason; in CI they fail.
"""

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
)
PIN, OFFICER_PIN = "271828", "314159265"


class Token:
    """A token with a label. environment: what a process needs to find it. pin_file: holds its PIN."""

    def __init__(self, directory: Path, label: str = "laterne-test") -> None:
        self.label = label
        self._directory = directory
        module = next((path for path in MODULES if Path(path).is_file()), None)
        tool = shutil.which("softhsm2-util")
        if module is None or tool is None:
            _leave_out("SoftHSM2 is not installed (as root: apt-get install softhsm2)")
        assert module is not None
        assert tool is not None
        try:
            self._pkcs11: Any = importlib.import_module("pkcs11")
        except ImportError:
            _leave_out("python-pkcs11 is not installed (pip install 'laterne[hsm]')")
        (directory / "tokens").mkdir(parents=True)
        configuration = directory / "softhsm2.conf"
        configuration.write_text(f"directories.tokendir = {directory / 'tokens'}\nobjectstore.backend = file\n")
        self.pin_file = directory / "pin"
        self.pin_file.write_text(PIN + "\n")
        self.environment = {"SOFTHSM2_CONF": str(configuration), "PYKCS11LIB": module}
        arguments = ["--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", OFFICER_PIN]
        subprocess.run([tool, *arguments], check=True, capture_output=True, env=os.environ | self.environment)

    def make_key(self, keyid: int, curve: str = "secp256r1") -> str:
        """A new pair of keys in the token. Its URI."""
        # In a process of its own: a PKCS#11 module reads its configuration once in a process.
        program = (
            "import sys, os, pkcs11\n"
            "from pkcs11.util.ec import encode_named_curve_parameters\n"
            "token = pkcs11.lib(os.environ['PYKCS11LIB']).get_token(token_label=sys.argv[1])\n"
            "with token.open(rw=True, user_pin=sys.argv[2]) as session:\n"
            "    parameters = session.create_domain_parameters(pkcs11.KeyType.EC,\n"
            "        {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters(sys.argv[4])}, local=True)\n"
            "    parameters.generate_keypair(store=True, id=pkcs11.util.biginteger(int(sys.argv[3])))\n"
        )
        subprocess.run(
            [sys.executable, "-c", program, self.label, PIN, str(keyid), curve],
            check=True,
            capture_output=True,
            env=os.environ | self.environment,
        )
        return f"hsm:{keyid}?label={self.label}"


def _leave_out(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(reason + ": in CI nothing is left out")
    pytest.skip(reason)
