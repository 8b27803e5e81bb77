"""Writes firmware/laterne_firmware/p256_table.py again: `python tests/firmware/write_p256_table.py`.

The table is computed here with schoolbook affine arithmetic that shares nothing with the board's. A test compares.
"""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

P = 2**256 - 2**224 + 2**192 + 2**96 - 1
TEETH = 6
COLUMNS = 43  # positions between two teeth
PIECE_BYTES = 512  # eight points
TARGET = Path(__file__).parents[2] / "firmware/laterne_firmware/p256_table.py"

Point = tuple[int, int]

HEADER = '''"""Multiples of the base point of P-256 for the comb in p256_points: 32 points, big-endian x and y.

In four pieces: a heap that was used for a while has no room for all of it in one.

Entry i is (2^215 + sum over j < 5 of +-2^(43 j)) G, the sign being + where bit j of i is set. Do not edit:
tests/firmware/write_p256_table.py writes this file, and a test computes it again.
"""

BASE_POINTS = (
'''


def add(left: Point, right: Point) -> Point:
    """The sum of two points that are neither opposite nor infinity."""
    if left == right:
        slope = (3 * left[0] * left[0] - 3) * pow(2 * left[1], -1, P)
    else:
        slope = (right[1] - left[1]) * pow(right[0] - left[0], -1, P)
    x = (slope * slope - left[0] - right[0]) % P
    return x, (slope * (left[0] - x) - left[1]) % P


def base_points() -> bytes:
    """The table, 2,048 bytes."""
    base = ec.derive_private_key(1, ec.SECP256R1()).public_key().public_numbers()
    teeth = [(base.x, base.y)]
    for _ in range(TEETH - 1):
        tooth = teeth[-1]
        for _ in range(COLUMNS):
            tooth = add(tooth, tooth)
        teeth.append(tooth)
    table = b""
    for entry in range(1 << (TEETH - 1)):
        point = teeth[-1]
        for bit, (x, y) in enumerate(teeth[:-1]):
            point = add(point, (x, y) if entry >> bit & 1 else (x, P - y))
        table += point[0].to_bytes(32, "big") + point[1].to_bytes(32, "big")
    return table


def source() -> str:
    """The text of the module."""
    table = base_points()
    lines = []
    for start in range(0, len(table), 16):
        comma = "," if (start + 16) % PIECE_BYTES == 0 else ""
        lines.append('    b"' + "".join(f"\\x{byte:02x}" for byte in table[start : start + 16]) + f'"{comma}\n')
    return HEADER + "".join(lines) + ")\n"


if __name__ == "__main__":
    TARGET.write_text(source())
