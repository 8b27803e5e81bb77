"""The operator's and the technician's commands: keys, boards, rosters, and the check of what boards have signed.

Everything that other parts read from here is a signed file: trust, credential, roster.
"""
