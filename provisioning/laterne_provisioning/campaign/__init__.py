"""Campaigns: a release going out to many boards in waves, halted by itself when boards do worse than before.

plan.py what was decided at the start · health.py a board against its own past · states.py the tables · engine.py the
machine, pure · evidence.py what so many boards prove · store.py the disk · wire.py the broker · runner.py all of it
together · show.py what people see · commands.py what is typed.
"""
