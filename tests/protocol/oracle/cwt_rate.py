"""How fast python-cwt checks signed objects, for tests/benchmarks/bench_verification.py: JSON lines, bytes as hex.

Runs with the interpreter of the oracles' environment. The key is loaded once, as a gateway would.
"""

import json
import sys
import time

from cwt import COSE, COSEKey

for line in sys.stdin:
    question = json.loads(line)
    x, y = question["key"][:64], question["key"][64:]
    key = COSEKey.new(
        {1: 2, 3: -9, 2: bytes.fromhex(question["kid"]), -1: 1, -2: bytes.fromhex(x), -3: bytes.fromhex(y)}
    )
    domain = question["domain"].encode()
    objects = [bytes.fromhex(one) for one in question["objects"]]
    cose = COSE.new()
    started = time.perf_counter()
    for one in objects:
        cose.decode(one, key, external_aad=domain)  # raises when it is not believed
    print(json.dumps({"answer": time.perf_counter() - started}), flush=True)
