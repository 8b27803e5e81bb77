"""What a test types instead of the commands of provisioning/README.md, and where the others are given."""

from tests.readmes.commands import BUILD

ROTATE = "laterne trust rotate --authority authority"
ROOTS = "--root-at 1=file2:/media/a/root-1.pem --root-at 3=file2:/media/b/root-3.pem"
LABEL = "laterne board label"
# In the README each chapter begins with LE-0001. Here it has been revoked by then, and LE-0002 is no more.
EXACTLY = {
    f"{LABEL} LE-0001 --authority authority -o label.png": f"{LABEL} LE-0003 --authority authority -o label.png",
    f"{LABEL} LE-0001 LE-0002 LE-0003 --authority authority -o sheet.pdf": (
        f"{LABEL} LE-0003 LE-0004 LE-0031 --authority authority -o sheet.pdf"
    ),
    "laterne board show LE-0001 --authority authority --qr": "laterne board show LE-0003 --authority authority --qr",
    'laterne init authority --name "Stadtwerke Musterstadt"': (
        "laterne init authority --name Stadtwerke --no-passphrase"
    ),
    "laterne board enrol --grant harbour.grant --technician-key lindqvist.pem --port /dev/ttyUSB0 --id LE-0101 "
    "--post Harbour-3": "laterne board enrol --grant harbour.grant --technician-key lindqvist.pem --port {LE-0101} "
    "--id LE-0101 --post Harbour-3",
    "laterne grant key -o lindqvist.pem > lindqvist.jwk": (
        "laterne grant key -o lindqvist.pem --no-passphrase > lindqvist.jwk"
    ),
    "laterne board accept --all --authority authority": "laterne board accept --all --authority authority --yes",
    'laterne board reject LE-0002 --authority authority --reason "unknown adapter"': (
        'laterne board reject LE-0005 --authority authority --reason "unknown adapter"'
    ),
    "laterne board rotate LE-0001 --authority authority --broker mqtts://broker:8883 --ca-file ca.pem "
    "--roster gw-1.roster": "laterne board rotate LE-0002 --authority authority --broker mqtts://broker:8883 "
    "--roster gw-1.roster",
    'laterne board decommission LE-0001 --reason "post taken down" --authority authority '
    "--broker mqtts://broker:8883 --roster gw-1.roster": 'laterne board decommission LE-0002 --reason "post taken '
    'down" --authority authority --broker mqtts://broker:8883 --roster gw-1.roster',
    f"{ROTATE} --role roster {ROOTS}": f"{ROTATE} --role roster {ROOTS} --no-passphrase",
    f"{ROTATE} --root 2 {ROOTS}": f"{ROTATE} --root 2 {ROOTS} --no-passphrase",
    "laterne release build -o r.laterne": f"{BUILD} -o r.laterne",
    "laterne release build -o 2.1.laterne && laterne release sign 2.1.laterne --authority authority": (
        f"{BUILD} --sequence 2000000000 -o 2.1.laterne && laterne release sign 2.1.laterne --authority authority"
    ),
    "laterne backup --authority authority -o /media/stick/2026-11-22.backup": (
        "laterne backup --authority authority -o /media/stick/2026-11-22.backup --include-plain-keys"
    ),
    "laterne restore /media/stick/2026-11-22.backup authority": (
        "laterne restore /media/stick/2026-11-22.backup restored"
    ),
}
BATCH = "laterne flash --batch --release r.laterne --authority authority --line /dev/ttyUSB0"
COUNTED = f"{BATCH} --id LE-0101 --count 25 --label box.pdf"
BOX_RELEASE = (f"{BUILD} -o box.laterne", "laterne release sign box.laterne --authority authority")
DOCTOR, WATCH = "laterne board doctor /dev/ttyACM0", "laterne board watch /dev/ttyACM0"
CAMPAIGN = (
    "laterne campaign start 2.1.laterne --authority authority --broker mqtts://broker:8883 --ca-file ca.pem "
    '--canary LE-0001,LE-0002 --waves 5,25,50,100 --soak 24h --window "Mo-Fr 02:00-04:00 Europe/Berlin"'
)
WATCHED, PAUSED = (f"laterne campaign {what} --authority authority" for what in ("status", "pause"))
WATCHED += " --watch"
# On emulated boards: one in a box is blank until it is flashed and enrolled, one on a shelf has this firmware.
EXACTLY |= {
    COUNTED: "laterne flash --batch --release box.laterne --authority authority --line box/board-01/uart "
    "--port-from box/board-01/usb --id LE-0141 --count 1 --label box.pdf",
    DOCTOR: "laterne board doctor box/board-01/usb",
    f"{DOCTOR} --release r.laterne": "laterne board doctor shelf/board-01/usb --release box.laterne",
    WATCH: "laterne board watch box/board-01/usb --count 1",
    CAMPAIGN: CAMPAIGN.replace("LE-0001,LE-0002", "LE-0003,LE-0031"),
}
CODES: dict[str, tuple[int, ...]] = {"laterne flash": (0, 1)}  # 1: there is no board on this machine
BACKGROUND = (CAMPAIGN, WATCHED)
UNTIL = (PAUSED,)
BY_FILES = (
    "hil_tests/test_an_order_by_usb_ends_a_board_in_service.py::test_operator_and_technician_end_a_board_by_files"
)
TOKEN = "tests/provisioning/test_token.py::test_a_credential_and_a_roster_are_signed_by_the_token"
ELSEWHERE = {
    f"{BATCH} --csv box.csv --label box.pdf": (
        "hil_tests/test_a_technician_flashes_a_box_of_boards.py::test_a_box_with_a_broken_board_is_done_in_two_goes"
    ),
    "laterne flash /dev/ttyACM0 --release r.laterne --authority authority --id LE-0001 --post P-17 --line /dev/ttyUSB0 "
    "--label LE-0001.pdf": "README.md",
    "laterne verify --broker mqtts://broker:8883 --ca-file ca.pem --roster gw-1.roster --trust trust.cbor "
    "--seconds 600": "README.md",
    'laterne board decommission LE-0001 --reason "dead line" --give-up-backlog --authority authority '
    "-o LE-0001.order": BY_FILES,
    "laterne flash /dev/ttyACM0 --release r.laterne --trust trust.cbor --order LE-0001.order": BY_FILES,
    "laterne board decommission LE-0001 --receipt LE-0001.receipt --authority authority": BY_FILES,
    "export PYKCS11LIB=/usr/lib/softhsm/libsofthsm2.so": TOKEN,
    'laterne init authority --key "enrolment=hsm:1?label=city" --key "roster=hsm:2?label=city" --pin-file /run/pin': (
        TOKEN
    ),
}
STRANGERS = {
    "pkcs11-tool --module $PYKCS11LIB --token-label city --login --keypairgen --key-type EC:prime256v1 --id 01 "
    "--usage-sign": "is OpenSC's, whom we do not install: tests/provisioning/softhsm.py makes the same key otherwise",
}
