"""Reads bytes with our code, on either interpreter: [kind, hex, more] -> what described.describe() says.

{"verdicts": kind, "hex": [...]} -> for each the class of its error, or "" when it is taken and gives itself again.
"""

from described import describe


def answer(question):
    if isinstance(question, list):
        kind, data, more = question
        return describe(kind, bytes.fromhex(data), more)
    more = {"domain": "laterne/report/1", "tags": [18]}
    verdicts = []
    for data in question["hex"]:
        found = describe(question["verdicts"], bytes.fromhex(data), more)
        verdicts.append(found.get("refused", "" if found["again"] else "another form"))
    return verdicts


if __name__ == "__main__":
    from lines import serve

    serve(answer)
