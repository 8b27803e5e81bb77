"""`laterne flash`: a release onto a blank board, by the REPL of its USB port.

interpreter.py what MicroPython it must have · layout.py what comes to lie where · repl.py the board's raw REPL ·
writing.py what differs is written, everything is read back · checking.py one reading of each sensor · ports.py which
ports there are · commands.py what is typed · enrolling.py who gives a board its name · box.py a box of boards,
arrivals.py what is plugged in, box_command.py what is told of it.
"""
