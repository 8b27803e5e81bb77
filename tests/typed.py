"""Commands as people type them: processes of their own, beside whatever runs in the test's loop, and always ended."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

LATERNE = (sys.executable, "-m", "laterne_provisioning")
GATEWAY = Path(sys.executable).with_name("laterne-gateway")
WITHIN_S = 60.0  # a bound for what would hang: others may share the cores


@contextlib.asynccontextmanager
async def begun(*command: object) -> AsyncIterator[asyncio.subprocess.Process]:
    """A command under way, for ended(); killed if it still runs when the block ends."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ended(process: asyncio.subprocess.Process, code: int = 0, within_s: float = WITHIN_S) -> tuple[str, str]:
    """What it has said: (stdout, stderr). It must end with this code."""
    async with asyncio.timeout(within_s):
        out, errors = await process.communicate()
    assert process.returncode == code, (out + errors).decode()
    return out.decode(), errors.decode()


async def run(*command: object, code: int = 0, within_s: float = WITHIN_S) -> tuple[str, str]:
    """As ended(), of a command that begins now."""
    async with begun(*command) as process:
        return await ended(process, code, within_s)


async def laterne(*arguments: object, code: int = 0, within_s: float = WITHIN_S) -> Any:
    """The JSON that `laterne` printed; all that it said where that is no JSON, or where it was to fail."""
    out, errors = await run(*LATERNE, *arguments, code=code, within_s=within_s)
    return json.loads(out) if code == 0 and out.startswith(("{", "[")) else out + errors


@contextlib.asynccontextmanager
async def started(*command: object) -> AsyncIterator[None]:
    """A command that runs until the block ends."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def gateway_config(folder: Path, broker_url: str, office: Path, line: Path) -> Path:
    """The configuration of a gateway `gw` that serves the boards of this authority on one line; all in `folder`."""
    await run(*LATERNE, "roster", "export", "--gateway", "gw", "--authority", office, "-o", folder / "roster")
    (folder / "gateway").mkdir()
    config = folder / "gateway.toml"
    config.write_text(
        f'[gateway]\nid = "gw"\ntenant = "t"\ndirectory = "gateway"\ntrust = "{office}/trust.cbor"\n'
        f'roster = "roster"\ncredential = "credential"\n[mqtt]\nurl = "{broker_url}"\n'
        f'[[line]]\nname = "line"\npath = "{line}"\n'
    )
    public, _ = await run(GATEWAY, "key", "--config", config)
    (folder / "gw.jwk").write_text(public)
    enrol = ("gateway", "enrol", "--id", "gw", "--key", folder / "gw.jwk", "--authority", office)
    await run(*LATERNE, *enrol, "-o", folder / "credential")
    return config
