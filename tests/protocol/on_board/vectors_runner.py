"""Reads bytes with our code, on either interpreter: [kind, hex, more] -> what described.describe() says.

{"verdicts": kind, "hex": [...]} -> for each the class of its error, or "" when it is taken and gives itself again.
"""

from described import describe  # type: ignore[import-not-found]  # protocol/vectors, in the runner's path


def answer(question: "list[str] | dict[str, str]") -> "object":
    if isinstance(question, list):
        kind, data, more = question
        return describe(kind, bytes.fromhex(data), more)
    asked = {"domain": "laterne/report/1", "tags": [18]}
    verdicts = []
    for data in question["hex"]:
        found = describe(question["verdicts"], bytes.fromhex(data), asked)
        if "refused" in found:
            verdicts.append(found["refused"])
        else:
            verdicts.append("" if found["again"] else "another form")
    return verdicts


if __name__ == "__main__":
    from lines import serve  # type: ignore[import-not-found]  # beside tests/firmware's runners

    serve(answer)
