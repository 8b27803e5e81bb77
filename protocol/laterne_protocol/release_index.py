"""The index of a release: all files that a board gets, read in small pieces as they come from flash.

    head = head_of(read)
    for path, size, digest in entries(read, head): ...

An index is a CBOR array of byte strings of at most 255 bytes each: first the head, then the files in the order of their
paths. `read(n)` gives the next n bytes, fewer only at the end. Whether they are the right ones is for the caller to
say, by the digest of the whole index in the manifest (protocol/README.md, 11.3).
"""

from laterne_protocol import cbor, fields
from laterne_protocol.errors import CborError, ObjectError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    Read = Callable[[int], bytes]

MAX_FILES = 160
MAX_FILE_BYTES = 32768
MAX_RELEASE_BYTES = 524288
MAX_PATH_BYTES = 48
MAX_FOLDERS = 3  # above a file
LOADER = 1  # the interface between loader and release that this index speaks of (firmware/README.md)

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789_"
_DIGEST_BYTES = 32


class Head:
    """version: of the release, for people. abi: of its bytecode. files: how many. loader: the interface it needs.

    entry: the module to start. min_sequence: confirmed slots below it are given up, 0: none. trial_s: seconds within
    which it must be confirmed, None: the board's own time. interpreters: (first, last) version of the interpreter as
    10000 major + 100 minor + patch, None: any.
    """

    def __init__(
        self,
        version: str,
        abi: int,
        files: int,
        loader: int,
        entry: str,
        min_sequence: int = 0,
        trial_s: "int | None" = None,
        interpreters: "tuple[int, int] | None" = None,
    ) -> None:
        self.version = version
        self.abi = abi
        self.files = files
        self.loader = loader
        self.entry = entry
        self.min_sequence = min_sequence
        self.trial_s = trial_s
        self.interpreters = interpreters


def head_of(read: "Read") -> Head:
    """The head, which comes first. Raises CborError or ObjectError."""
    first = _next(read, 1)[0]
    if first == 0x98:
        count = _next(read, 1)[0]
        if count < 24:
            raise CborError("a number longer than it needs to be")
    else:
        count = first - 0x80
        if not 0 <= count < 24:
            raise ObjectError("an index is not an array")
    parts = fields.mapping(cbor.decode(_item(read)), "head of an index", (1, 2, 3, 4, 6), (5, 7, 8))
    head = Head(
        fields.text(parts[1], "version", 32),
        fields.integer(parts[2], "ABI", 1, 255),
        fields.integer(parts[3], "number of files", 1, MAX_FILES),
        fields.integer(parts[4], "loader", 1, 255),
        entry_of(parts[6]),
    )
    if head.files != count - 1:
        raise ObjectError("%d files in an index of %d" % (count - 1, head.files))
    if 5 in parts:
        head.min_sequence = fields.integer(parts[5], "least sequence", 1)
    if 7 in parts:
        head.trial_s = fields.integer(fields.mapping(parts[7], "health", (1,))[1], "trial", 60, 86400)
    if 8 in parts:
        both = fields.array(parts[8], "interpreters", 2, 2)
        first = fields.integer(both[0], "first interpreter", 0, 999999)
        head.interpreters = first, fields.integer(both[1], "last interpreter", first, 999999)
    return head


def entries(read: "Read", head: Head) -> "Generator[tuple[str, int, bytes], None, None]":
    """(path, bytes, SHA-256) of each file; after the last one, that nothing follows. Raises CborError, ObjectError."""
    former = ""
    above = []  # type: list[str]  # files whose paths the present one begins with; as folders they would be above it
    total = 0
    for _ in range(head.files):
        parts = fields.array(cbor.decode(_item(read)), "file of an index", 3, 3)
        path = path_of(parts[0])
        if path <= former:
            raise ObjectError("the files of an index are out of order")
        former = path
        while above and not path.startswith(above[-1]):
            above.pop()
        for file in above:
            if path[len(file)] == "/":
                raise ObjectError("%s is a file and a folder" % file)
        above.append(path)
        size = fields.integer(parts[1], "size", 0, MAX_FILE_BYTES)
        total += size
        if total > MAX_RELEASE_BYTES:
            raise ObjectError("the files of a release are larger than %d bytes" % MAX_RELEASE_BYTES)
        yield path, size, fields.byte_string(parts[2], "digest", _DIGEST_BYTES)
    if read(1):
        raise CborError("bytes after the end of an index")


def path_of(value: object) -> str:
    """The value as a path in a slot: relative, lower case, never out of it. Raises ObjectError."""
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_PATH_BYTES:
        raise ObjectError("a path is not a text of 1..%d bytes" % MAX_PATH_BYTES)
    parts = value.split("/")
    for part in parts:
        # No name begins with a dot, or is empty: so there is no "..", no leading and no double slash. strip() leaves
        # what is not ours. M and E, the slot's own, are upper case; a name that ends in .n is a file half written.
        if not part or part[0] == "." or part.replace(".", "").replace("-", "").strip(_LETTERS) or part[-2:] == ".n":
            raise ObjectError("a path that leads nowhere in a slot")
    if len(parts) > MAX_FOLDERS + 1:
        raise ObjectError("a path of more than %d folders" % MAX_FOLDERS)
    return value


def entry_of(value: object) -> str:
    """The value as the name of a module. Raises ObjectError."""
    name = fields.text(value, "entry", MAX_PATH_BYTES)
    for part in name.split("."):
        if not part or part.strip(_LETTERS):
            raise ObjectError("the entry is not the name of a module")
    return name


def _item(read: "Read") -> bytes:
    first = _next(read, 1)[0]
    size = first - 0x40
    if first == 0x58:
        size = _next(read, 1)[0]
        if size < 24:
            raise CborError("a number longer than it needs to be")
    elif not 0 <= size < 24:
        raise ObjectError("an item of an index is not a byte string of up to 255 bytes")
    return _next(read, size)


def _next(read: "Read", size: int) -> bytes:
    data = read(size)
    if len(data) != size:
        raise CborError("the end is missing")
    return data
