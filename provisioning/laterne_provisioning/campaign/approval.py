"""The second person: a key that is not the authority's signs the digest of a plan before anything of it begins."""

from functools import partial
from pathlib import Path

from laterne_protocol import cbor, cose, fields
from laterne_protocol.errors import ObjectError, WireError
from laterne_provisioning import keys, primitives
from laterne_provisioning.authority import sign_object
from laterne_provisioning.campaign.plan import Plan
from laterne_provisioning.errors import OperatorError

DOMAIN = "laterne/campaign/1"
MAX_APPROVAL_BYTES = 256


def signed(plan: Plan, path: Path, secrets: keys.Secrets) -> bytes:
    """The approval of a plan, a COSE_Sign1, by the key in this file. Raises OperatorError: it is not the approver's."""
    uri = keys.file_uri(path.resolve())
    public = keys.public_key(uri, "approver's key", Path("/"), secrets)
    if public.hex() != plan.approver:
        raise OperatorError(f"{path} is not the key that was named with --approve-by when {plan.id} was made.")
    key = keys.SigningKey("approver's key", uri, public, Path("/"), secrets)
    return sign_object(key, DOMAIN, cbor.encode({1: plan.id, 2: bytes.fromhex(plan.digest)}))


def require(plan: Plan, approval: bytes) -> None:
    """Raises OperatorError: nobody, or not the named key, has approved this plan."""
    if not plan.approver:
        return
    try:
        if not approval:
            raise ObjectError("nobody has")
        one = cose.parse(approval, MAX_APPROVAL_BYTES)
        payload = cose.verify(one, DOMAIN, partial(primitives.is_signature, bytes.fromhex(plan.approver)))
        parts = fields.mapping(cbor.decode(payload, MAX_APPROVAL_BYTES), "approval", (1, 2))
        if (parts[1], parts[2]) != (plan.id, bytes.fromhex(plan.digest)):
            raise ObjectError("it is for another plan")
    except WireError as why:
        raise OperatorError(
            f"{plan.id} is not approved ({why}): `laterne campaign approve {plan.id} --key FILE` by the second person."
        ) from why
