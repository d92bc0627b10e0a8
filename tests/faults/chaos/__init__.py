"""The parts of the row `chaos`: faults at random, and an oracle that checks all the time.

schedule.py says when which action is done and undone, actions.py does it, control.py is the client
that shows what the broker can do, oracle.py judges, run.py puts them together.
"""
