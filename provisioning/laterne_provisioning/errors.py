"""What stops a command. Each message is a sentence for the person at the terminal and ends in what to do."""

STOPPED = 130  # the exit code of what Ctrl-C has ended: 128 + SIGINT, as shells count


class OperatorError(Exception):
    """Something was found wrong: the command ends with exit code 1."""

    exit_code = 1


class UsageError(OperatorError):
    """An option, a path or a configuration is wrong: the command ends with exit code 2."""

    exit_code = 2
