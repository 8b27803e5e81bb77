# main.py of an emulated board in the power-cut sweep: says what it finds, then replaces a file by rename.
import os

OLD, NEW = b"A" * 700, b"B" * 1300


def found():
    try:
        with open("file", "rb") as file:
            content = file.read()
    except OSError:
        return "nothing"
    return {OLD: "old", NEW: "new"}.get(content, "damage")


print(f"found {found()}.")
with open("file.new", "wb") as file:
    file.write(NEW)
os.rename("file.new", "file")
print("updated")
