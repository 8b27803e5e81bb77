"""`laterne board …`: its commands, in the order in which they are shown."""

import typer

from laterne_provisioning import board_commands, enrol_command, label_commands, order_commands
from laterne_provisioning.doctor import commands as doctor_commands

app = typer.Typer(no_args_is_help=True, help="Enrol boards and see which there are.")
app.command()(enrol_command.enrol)
app.command("list")(board_commands.list_boards)
for command in (
    board_commands.show,
    label_commands.label,
    doctor_commands.doctor,
    doctor_commands.watch,
    board_commands.accept,
    board_commands.reject,
    board_commands.replace,
    order_commands.rotate,
    board_commands.revoke,
    order_commands.decommission,
):
    app.command()(command)
