"""What can be wrong with bytes from outside: one class for each thing a caller can do about it.

Every function of this package that is given bytes from outside raises a WireError and nothing else. What only
handshakes and sessions raise stands with them, in `edhoc_messages` and `session`.
"""


class WireError(ValueError):
    """Bytes that do not follow protocol/README.md."""


class CborError(WireError):
    """Not deterministic CBOR of our subset (protocol/README.md, 1): refuse the object."""


class FrameError(WireError):
    """A value that does not fit into a frame: a mistake of the sender, never raised for received bytes."""


class MessageError(WireError):
    """Not a message we know (protocol/README.md, 3): drop it, the sender will repeat it or give up."""


class CoseError(WireError):
    """Not a COSE_Sign1 of our profile (protocol/README.md, 4): refuse the object."""


class SignatureError(CoseError):
    """The signature is not that of the key, or was made for another kind of object: refuse it and raise an alarm."""


class ObjectError(WireError):
    """The signed payload is not what its domain string says it is: its signer made a mistake, set it aside."""
