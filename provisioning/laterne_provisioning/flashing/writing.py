"""What differs from the layout is written onto the board; then all of it is read back, by hashes made on the board.

Nothing is believed because it was written: a repeated command asks the board for every hash again. Each file is
written under another name, closed and renamed, so that a name on flash always has the whole of one content. /main.py
goes first and comes back last (layout.py): a board that was left in between starts nothing, and has a REPL.
"""

import base64
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from laterne_provisioning.errors import OperatorError
from laterne_provisioning.flashing.layout import MAIN, OWN_FOLDERS, UNFINISHED, File, Layout
from laterne_provisioning.flashing.repl import BoardFailed, Repl

PIECE_BYTES = 1536  # 2 KB in base64: a board compiles it within some 8 KB of heap
BATCH_BYTES = 3072  # of programs that go together
ASKED_AT_ONCE = 16  # hashes
MAX_LISTED_BYTES = 1 << 16

# What stays in the board's memory while it is flashed. _o _a _c: open, add, close and rename; _k copies; _h hashes;
# _l lists a folder. A file that an earlier command has left open is closed first: closed later, by the collector, it
# would be written over the new one (facts on littlefs, 1.4). The dots tell that something goes on: some fifty files go
# with one program, and the slowest flash takes a second for each (400 ms for an erase).
_PROGRAM = """
import os,hashlib,binascii,gc
try:_f.close()
except (NameError,OSError):pass
def _o(p):
 global _f,_p
 d=''
 for n in p.split('/')[1:-1]:
  d+='/'+n
  try:os.mkdir(d)
  except OSError as e:
   if e.errno!=17:raise
 _p=p
 _f=open(p+'.n','wb')
def _a(s):_f.write(binascii.a2b_base64(s))
def _c():
 _f.close()
 os.rename(_p+'.n',_p)
 print('.')
def _k(q,p):
 _o(p)
 with open(q,'rb') as g:
  while 1:
   b=g.read(1024)
   if not b:break
   _f.write(b)
 _c()
def _h(p):
 try:f=open(p,'rb')
 except OSError:return print('-')
 h=hashlib.sha256();b=bytearray(512);v=memoryview(b)
 with f:
  while 1:
   n=f.readinto(b)
   if not n:break
   h.update(v[:n])
 print(binascii.b2a_base64(h.digest()).decode().strip())
def _l(p):
 try:r=list(os.ilistdir(p))
 except OSError:return
 for e in r:
  q=p+'/'+e[0]
  if e[1]&0x4000:
   _l(q)
  else:print('f',q)
 print('d',p)
gc.collect()
"""


@dataclass(frozen=True)
class Written:
    """What a flashing has come to. files: of the layout. written: how many were not right before. bytes: of those."""

    files: int
    written: int
    bytes: int


# done, whole: bytes. Called as it goes on.
Progress = Callable[[int, int], None]


def stopped(repl: Repl) -> None:
    """No firmware runs on the board any more, nor its watchdog, and none starts at the next start. Raises BoardGone."""
    repl.run(_PROGRAM)
    names = repl.run("print(' '.join(os.listdir('/')))").decode(errors="replace").split()
    if MAIN in names:
        repl.run(f"os.rename('/{MAIN}','/{MAIN}{UNFINISHED}')")
        repl.restart()  # a watchdog that runs can only be stopped so
        if repl.run("print('_o' in globals())").strip() != b"False":
            raise OperatorError(f"The board on {repl.port} has not reset itself: unplug it, plug it in and repeat.")
        repl.run(_PROGRAM)


def require_not_enrolled(repl: Repl) -> None:
    """Raises OperatorError: there is a credential on the board's flash."""
    program = (
        "import os\n"
        "try:_n=os.listdir('/k')\n"
        "except OSError:_n=[]\n"
        "print(any(n.split('.')[0] in ('credential','name') for n in _n))"
    )
    if repl.run(program).strip() != b"False":
        raise OperatorError(
            f"The board on {repl.port} is enrolled, and nothing of laterne runs on it: its /{MAIN} is gone. Its keys "
            "may have been read by anyone: revoke it, erase its flash (BOOTSEL, esptool) and flash it under a new id."
        )


def write(repl: Repl, layout: Layout, progress: Progress) -> Written:
    """Everything but main.py, and read back. The board must be stopped. Raises OperatorError, BoardGone."""
    wanted = {file.path: file for file in layout.files}
    listed = _listed(repl)
    _remove(repl, listed, set(wanted))
    there = set(listed["f"])
    # Outside of our folders nothing was listed: files there are asked for, too.
    asked = [file for file in layout.files if file.path in there or "/" not in file.path]
    held = _digests(repl, [file.path for file in asked])
    missing = [file for file in layout.files if held.get(file.path) != file.digest]
    _require_room(repl, [file for file in missing if held.get(file.path) is None])
    whole = sum(len(file.content) for file in missing)
    done = 0
    try:
        for program, size in _batches(missing):
            repl.run(program)
            done += size
            progress(done, whole)
    except BoardFailed as why:
        raise OperatorError(
            f"The board's flash refuses ({why.last}): repeat the command; if it stays, erase the flash or take "
            "another board."
        ) from why
    _read_back(repl, layout.files)
    return Written(len(layout.all), len(missing), whole)


def finish(repl: Repl, layout: Layout) -> None:
    """main.py comes back, and is read back: from its next start on the board runs laterne. Raises OperatorError."""
    for program, _ in _batches([layout.main]):
        repl.run(program)
    _read_back(repl, [layout.main])


def _batches(files: Sequence[File]) -> Iterator[tuple[str, int]]:
    """(a program for the board, how many bytes it writes)."""
    program, size = "", 0
    for file in files:
        for statement, written in _statements(file):
            if len(program) + len(statement) > BATCH_BYTES:
                yield program, size
                program, size = "", 0
            program += statement
            size += written
    if program:
        yield program, size


def _statements(file: File) -> Iterator[tuple[str, int]]:
    if file.same_as is not None:
        yield f"_k('/{file.same_as}','/{file.path}')\n", len(file.content)
        return
    yield f"_o('/{file.path}')\n", 0
    for at in range(0, len(file.content), PIECE_BYTES):
        piece = file.content[at : at + PIECE_BYTES]
        yield f"_a('{base64.b64encode(piece).decode()}')\n", len(piece)
    yield "_c()\n", 0


def _listed(repl: Repl) -> dict[str, list[str]]:
    """What is in our folders, without the first slash: "f": files, "d": the folders, each after what is in it."""
    found: dict[str, list[str]] = {"f": [], "d": []}
    for folder in OWN_FOLDERS:
        printed = repl.run(f"_l('/{folder}')")
        if len(printed) > MAX_LISTED_BYTES:
            raise OperatorError(
                f"/{folder} of the board on {repl.port} holds too much to be laterne's: erase its flash (BOOTSEL, "
                "esptool) and repeat."
            )
        for row in printed.decode(errors="replace").splitlines():
            kind, _, path = row.partition(" ")
            if kind not in found:
                raise OperatorError(
                    f"/{folder} of the board on {repl.port} holds a name that cannot be read: erase its flash "
                    "(BOOTSEL, esptool) and repeat."
                )
            found[kind].append(path.removeprefix("/"))
    return found


def _remove(repl: Repl, listed: dict[str, list[str]], wanted: set[str]) -> None:
    """What is in our folders and in no plan: an older module beside the new ones could be loaded instead of one."""
    needed = {path[:at] for path in wanted for at, letter in enumerate(path) if letter == "/"}
    rows = [f"os.remove({'/' + path!r})\nprint('.')\n" for path in listed["f"] if path not in wanted]
    rows += [f"os.rmdir({'/' + path!r})\nprint('.')\n" for path in listed["d"] if path not in needed]
    for at in range(0, len(rows), ASKED_AT_ONCE):
        repl.run("".join(rows[at : at + ASKED_AT_ONCE]))


def _digests(repl: Repl, paths: Sequence[str]) -> dict[str, bytes | None]:
    """{path: SHA-256, None for a file that is not there}, made on the board."""
    found: dict[str, bytes | None] = {}
    for at in range(0, len(paths), ASKED_AT_ONCE):
        some = paths[at : at + ASKED_AT_ONCE]
        rows = repl.run("".join(f"_h('/{path}')\n" for path in some)).split()
        try:
            for path, row in zip(some, rows, strict=True):
                found[path] = None if row == b"-" else base64.b64decode(row)
        except ValueError as why:
            raise OperatorError(
                f"The board on {repl.port} answers something else than was asked: repeat the command."
            ) from why
    return found


def _read_back(repl: Repl, files: Sequence[File]) -> None:
    held = _digests(repl, [file.path for file in files])
    wrong = [file.path for file in files if held[file.path] != file.digest]
    if wrong:
        raise OperatorError(
            f"/{wrong[0]} was read back from the board other than it was written"
            + (f", and {len(wrong) - 1} more" if len(wrong) > 1 else "")
            + ": repeat the command; if it stays, the flash is worn: take another board."
        )


def _require_room(repl: Repl, new: Sequence[File]) -> None:
    """Raises OperatorError: flash is too small, or full of something else."""
    # More free than there are is a number that went below 0 (store.free_blocks in firmware).
    told = repl.run("_s=os.statvfs('/')\nprint(_s[0],_s[3] if _s[3]<=_s[2] else 0)")
    try:
        block, free = map(int, told.split())
    except ValueError as why:
        raise OperatorError(
            f"The board on {repl.port} answers something else than was asked: repeat the command."
        ) from why
    # littlefs gives a file whole blocks, a folder two; small files lie in their folder's.
    folders = {file.path.rpartition("/")[0] for file in new}
    needed = sum(math.ceil(len(file.content) / block) for file in new if len(file.content) > block // 8)
    needed += 2 * len(folders)
    if needed > free:
        raise OperatorError(
            f"The board has {free * block // 1024} KiB of flash left, and the release needs about "
            f"{needed * block // 1024}: remove what else is on it (`mpremote rm`), or take a larger board."
        )
