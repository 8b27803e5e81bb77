"""`laterne board …`: its commands, in the order in which they are shown."""

import typer

from laterne_provisioning import board_commands, enrol_command, label_commands, order_commands
from laterne_provisioning.doctor import commands as doctor_commands

app = typer.Typer(no_args_is_help=True, help="Enrol boards and see which there are.")
for command in (
    board_commands.accept,
    board_commands.reject,
    board_commands.revoke,
    board_commands.replace,
    order_commands.rotate,
    order_commands.decommission,
    label_commands.label,
    enrol_command.enrol,
    doctor_commands.doctor,
    doctor_commands.watch,
):
    app.command()(command)
app.command("list")(board_commands.list_boards)
app.command()(board_commands.show)
