"""What a test types instead of the commands of provisioning/README.md, and what no test can run."""

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
CANNOT = {
    f"{BATCH} --csv box.csv --label box.pdf": "needs a box of boards, and hands: hil_tests",
    f"{BATCH} --id LE-0101 --count 25 --label box.pdf": "needs a box of boards, and hands: hil_tests",
    "laterne board doctor /dev/ttyACM0": "needs a board on USB: hil_tests",
    "laterne board doctor /dev/ttyACM0 --release r.laterne": "needs a board on USB: hil_tests",
    "laterne board watch /dev/ttyACM0": "needs a board on USB, and runs until Ctrl-C: hil_tests",
    "laterne flash /dev/ttyACM0 --release r.laterne --authority authority --id LE-0001 --post P-17 --line /dev/ttyUSB0 "
    "--label LE-0001.pdf": "README.md's is run",
    'laterne board decommission LE-0001 --reason "dead line" --give-up-backlog --authority authority '
    "-o LE-0001.order": ("needs a board in service: hil_tests/test_an_order_by_usb_ends_a_board_in_service.py"),
    "laterne flash /dev/ttyACM0 --release r.laterne --trust trust.cbor --order LE-0001.order": "needs such a board",
    "laterne board decommission LE-0001 --receipt LE-0001.receipt --authority authority": "needs its receipt",
    "export PYKCS11LIB=/usr/lib/softhsm/libsofthsm2.so": "needs a token: tests/provisioning/test_token.py",
    "pkcs11-tool --module $PYKCS11LIB --token-label city --login --keypairgen --key-type EC:prime256v1 --id 01 "
    "--usage-sign": "needs a token",
    'laterne init authority --key "enrolment=hsm:1?label=city" --key "roster=hsm:2?label=city" --pin-file /run/pin': (
        "needs a token: tests/provisioning/test_token.py"
    ),
    "laterne campaign start 2.1.laterne --authority authority --broker mqtts://broker:8883 --ca-file ca.pem "
    '--canary LE-0001,LE-0002 --waves 5,25,50,100 --soak 24h --window "Mo-Fr 02:00-04:00 Europe/Berlin"': (
        "takes days: tests/provisioning/campaign"
    ),
    "laterne campaign status --authority authority --watch": "needs a campaign, and runs until Ctrl-C",
    "laterne campaign pause --authority authority": "needs a campaign",
    "laterne verify --broker mqtts://broker:8883 --ca-file ca.pem --roster gw-1.roster --trust trust.cbor "
    "--seconds 600": "takes ten minutes: README.md's is run",
}
