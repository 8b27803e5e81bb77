"""A booted systemd for tests: this machine's own file system under an overlay that is thrown away, in systemd-nspawn.

Nothing is downloaded and nothing of this machine is changed; it starts in a second. It needs root and Debian's
systemd-container. A unit's MemoryMax counts in it: where this machine's cgroups are of version 1, it gets a group of
them. The network is this machine's, so a broker on loopback is there; programs of this checkout run as any
user by /usr/local/bin/laterne-gateway, wherever the checkout lies. installed() puts them there as people do instead.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

WITHIN_S = 60.0
_SOURCE = Path(__file__).parents[1]
_INSIDE = "/opt/checkout"
_PACKAGES = ("protocol", "gateway", "provisioning", "hil_tests")

# Runs in a mount namespace of its own: whatever is mounted goes with the last process in it.
_OUTSIDE = """
set -eu
place=$1 group=$2
shift 2
mount -t tmpfs tmpfs "$place"
mkdir "$place/upper" "$place/work" "$place/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$place/upper,workdir=$place/work" "$place/root"
mkdir -p /run/systemd/nspawn
mount -t tmpfs tmpfs /run/systemd/nspawn
root="$place/root"
: > "$root/etc/machine-id"
rm -rf "$root/etc/systemd/system"
mkdir -p "$root/etc/systemd/system" "$root/usr/local/bin" "$root/opt/checkout"
cp "$place.files/laterne-gateway" "$root/usr/local/bin/"
cp "$place.files/driver.service" "$place.files/test.target" "$root/etc/systemd/system/"
if [ -d "/sys/fs/cgroup/memory/$group" ]; then
    # Version 1: nspawn shows them read-only, and systemd looks only once whether it may use them.
    for controller in memory devices; do
        echo $$ > "/sys/fs/cgroup/$controller/$group/cgroup.procs"
    done
    cp "$place.files/init" "$root/"
    set -- "$@" /init
else
    set -- --boot "$@" -- --unit=test.target
fi
exec systemd-nspawn --quiet --register=no --keep-unit --console=pipe --directory="$root" "$@"
"""
_INIT = """#!/bin/sh
mount -o remount,bind,rw /sys/fs/cgroup/memory && mount -o remount,bind,rw /sys/fs/cgroup/devices || exit 1
exec /lib/systemd/systemd --unit=test.target
"""
_CONTROLLERS = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup/devices")  # of version 1
_DRIVER = """[Unit]
After=sysinit.target dbus.service
[Service]
ExecStart=/bin/sh -c 'while read -r n < /shared/next; do \\
    sh /shared/$n.sh > /shared/$n.out 2>&1; echo $? > /shared/$n.rc; echo done > /shared/answer; done'
Restart=always
RestartSec=0
"""
_TARGET = "[Unit]\nRequires=sysinit.target dbus.service driver.service\nAfter=sysinit.target\nAllowIsolate=yes\n"


class Booted:
    """binds: of files and devices of ours, {path inside: path here}; `directory` is /shared inside."""

    def __init__(self, directory: Path, binds: dict[str, Path]) -> None:
        self._directory = directory
        self._binds = binds
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = 0
        self._group = f"laterne-{os.getpid()}-{id(self)}"
        self._groups = [one / self._group for one in _CONTROLLERS if one.is_dir()]

    def __enter__(self) -> Self:
        missing = [name for name in ("systemd-nspawn", "unshare") if shutil.which(name) is None]
        if os.geteuid() != 0 or missing:
            reason = f"needs root and Debian's systemd-container{f' ({missing[0]} is missing)' if missing else ''}"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)
        place, shared = self._directory / "machine", self._directory / "shared"
        files = self._directory / "machine.files"
        for folder in (place, shared, files):
            folder.mkdir(parents=True)
        for name in ("next", "answer"):
            os.mkfifo(shared / name)
        python, binds = self._python()
        paths = ":".join([*(f"{_INSIDE}/source/{name}" for name in _PACKAGES), f"{_INSIDE}/site"])
        program = files / "laterne-gateway"
        # An interpreter that was built for another place finds its own library only so.
        library = f"LD_LIBRARY_PATH={_INSIDE}/python/lib " if python.startswith(_INSIDE) else ""
        program.write_text(f'#!/bin/sh\n{library}PYTHONPATH={paths} exec {python} -s -m laterne_gateway "$@"\n')
        program.chmod(0o755)
        (files / "driver.service").write_text(_DRIVER)
        (files / "test.target").write_text(_TARGET)
        (files / "init").write_text(_INIT)
        (files / "init").chmod(0o755)
        for group in self._groups:
            group.mkdir()
        arguments = [f"--bind={shared}:/shared"]
        arguments += [f"--bind-ro={here}:{inside}" for inside, here in binds.items()]
        arguments += [f"--bind={here}:{inside}" for inside, here in self._binds.items()]
        with (self._directory / "console").open("wb") as console:
            self._process = subprocess.Popen(
                [
                    "unshare",
                    "--mount",
                    "--propagation",
                    "private",
                    "sh",
                    "-c",
                    _OUTSIDE,
                    "sh",
                    str(place),
                    self._group,
                    *arguments,
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, why: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        if why is not None:
            print((self._directory / "console").read_text(errors="replace")[-4000:])
        # nspawn's own signal for "halt at once" is none that it waits for. All of the machine dies with its init, which
        # does not die with nspawn.
        with contextlib.suppress(AssertionError):  # it has ended by itself
            os.kill(self.pid_here(1), signal.SIGKILL)
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for top in self._groups:
            for group, _, _ in os.walk(top, topdown=False):
                self._gone(Path(group))

    def run(self, script: str, *, fails: bool = False) -> str:
        """What a shell script inside said, as root. fails: whether it is expected to."""
        assert self._process is not None
        shared = self._directory / "shared"
        self._asked += 1
        (shared / f"{self._asked}.sh").write_text(script)
        self._through(shared / "next", f"{self._asked}\n".encode())
        self._through(shared / "answer", None)
        said = (shared / f"{self._asked}.out").read_text(errors="replace")
        code = int((shared / f"{self._asked}.rc").read_text())
        assert (code != 0) == fails, f"{script}\nexit code {code}\n{said}"
        return said

    def until(self, script: str, within_s: float = WITHIN_S) -> str:
        """Runs it until it succeeds."""
        ends_s = time.monotonic() + within_s
        while True:
            try:
                return self.run(script)
            except AssertionError:
                if time.monotonic() > ends_s:
                    raise
                time.sleep(0.2)

    def installed(self, command: str) -> str:
        """Gives what a README says to be given in the checkout, with this interpreter and this environment's libraries
        and nothing from the network. After that there is no checkout any more. What it said."""
        python, binds = self._python()
        libraries = f"{_INSIDE}/python/lib" if f"{_INSIDE}/python" in binds else "/usr/lib"
        return self.run(
            f"set -e; cd {_INSIDE}/source; rm /usr/local/bin/laterne-gateway\n"
            f"echo {libraries} > /etc/ld.so.conf.d/python.conf; ldconfig\n"
            f"export PIP_NO_INDEX=1 PIP_NO_DEPS=1 PIP_NO_BUILD_ISOLATION=0 PYTHONPATH={_INSIDE}/site\n"
            f"{command.replace('sudo ', '').replace('/usr/bin/python3', python)}\n"
            f"cd /; umount {_INSIDE}/source\n"
            f"for site in /opt/laterne/lib/python3*/site-packages; do echo {_INSIDE}/site > $site/libraries.pth; done\n"
        )

    def pid_here(self, inside: int) -> int:
        """The number that a process of the machine has outside."""
        assert self._process is not None
        place = f"--directory={self._directory / 'machine' / 'root'}".encode()
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                numbers = re.findall(r"^NSpid:\t(.*)$", status.read_text(), re.MULTILINE)[0].split()
            except (OSError, IndexError):
                continue  # it has ended meanwhile
            if len(numbers) > 1 and numbers[-1] == str(inside) and self._is_ours(int(numbers[0]), place):
                return int(numbers[0])
        raise AssertionError(f"no process {inside} in the machine")

    @staticmethod
    def _gone(group: Path) -> None:
        """Removes a control group when the last process in it has ended: a killed one takes a moment."""
        ends_s = time.monotonic() + WITHIN_S
        while True:
            try:
                group.rmdir()
                return
            except OSError:
                if time.monotonic() > ends_s:
                    raise
                time.sleep(0.02)

    @staticmethod
    def _is_ours(number: int, place: bytes) -> bool:
        """Whether this machine's nspawn is among its ancestors."""
        while number > 1:
            if place in Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0"):
                return True
            number = int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])
        return False

    def _through(self, fifo: Path, data: bytes | None) -> None:
        # Without blocking for ever: the other end may have died.
        assert self._process is not None
        ends_s = time.monotonic() + WITHIN_S
        while True:
            ended = self._process.poll()
            assert ended is None, f"the machine ended: {ended}"
            assert time.monotonic() < ends_s, f"nobody inside at {fifo.name}"
            try:
                descriptor = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK if data is None else os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                time.sleep(0.02)
                continue
            try:
                if data is not None:
                    os.write(descriptor, data)
                    return
                while time.monotonic() < ends_s and self._process.poll() is None:
                    try:
                        if os.read(descriptor, 16):
                            return
                    except BlockingIOError:
                        pass
                    time.sleep(0.01)
            finally:
                os.close(descriptor)

    @staticmethod
    def _python() -> tuple[str, dict[str, Path]]:
        """How the interpreter is called inside, and what must be there for it."""
        binds = {f"{_INSIDE}/source": _SOURCE, f"{_INSIDE}/site": Path(sysconfig.get_paths()["purelib"])}
        real = Path(sys.executable).resolve()
        base = Path(sys.base_prefix).resolve()
        if base == Path("/usr"):
            return str(real), binds
        binds[f"{_INSIDE}/python"] = base
        return f"{_INSIDE}/python/{real.relative_to(base)}", binds
