"""`laterne board doctor` and `board watch`: how the board on a USB port is, in words, and its readings as they come.

console.py what a running board prints · repl_facts.py what a board with a REPL is asked · judging.py ok, look at or
broken · watching.py charts and lines · commands.py what is typed. Nothing here is sent to a board that is enrolled.
"""
