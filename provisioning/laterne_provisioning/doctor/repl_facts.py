"""What a board with a REPL is asked: interpreter, flash, memory, and what of laterne lies on it.

Only a board that is not enrolled has one. If a firmware runs on it, it is interrupted; its watchdog bites 8 s later,
or the reset at the end comes first. Nothing is written.
"""

import ast
import base64
import io

from laterne_protocol import release_index
from laterne_protocol.errors import WireError
from laterne_provisioning import output
from laterne_provisioning.doctor.judging import Facts
from laterne_provisioning.errors import OperatorError
from laterne_provisioning.flashing import interpreter
from laterne_provisioning.flashing.repl import Repl

_ASK = """
import os,gc,machine
gc.collect()
def _n(p):
 try:return os.listdir(p)
 except OSError:return []
_k=[n.split('.')[0] for n in _n('/k')]
_s=os.statvfs('/')
_p=machine.reset_cause()==machine.PWRON_RESET
_r=os.urandom(16)!=os.urandom(16)
_k='keys' in _k,'credential' in _k or 'name' in _k
print([_p,_s[0],_s[2],_s[3] if _s[3]<=_s[2] else 0,gc.mem_free(),_k[0],_k[1],'main.py' in _n('/'),_r])
"""
_INDEX = """
import binascii
try:
 with open('/a/M','rb') as f:print(binascii.b2a_base64(f.read(1024)).decode().strip())
except OSError:print('')
"""


def asked(repl: Repl) -> Facts:
    """Raises OperatorError: it says something else than MicroPython does."""
    found = interpreter.told(repl.run(interpreter.ASK))
    printed = repl.run(_ASK)
    try:
        by_power, block, blocks, free_blocks, free, keys, credential, main, is_random = ast.literal_eval(
            printed[:256].decode().strip()
        )
        return Facts(
            str(found),
            _release(repl),
            bool(by_power),
            int(block),
            int(blocks),
            int(free_blocks),
            int(free),
            bool(keys),
            bool(credential),
            bool(main),
            bool(is_random),
        )
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as why:
        raise OperatorError(
            f"The board on {repl.port} has said nothing that can be read ({printed[:32].hex()}): repeat the command."
        ) from why


def _release(repl: Repl) -> str | None:
    begun = base64.b64decode(repl.run(_INDEX).strip()[:2048])
    if not begun:
        return None
    try:
        head = release_index.head_of(io.BytesIO(begun).read)
    except WireError:
        return "a release whose index is damaged"
    return output.foreign(head.version) or "a release without a name"
