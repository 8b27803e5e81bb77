"""The end of a board that no gateway reaches: its order goes away in a file, its receipt comes back in one.

The steps are those of orders.py, where they stand in the registry; a technician is the way in place of the broker
(flashing/service_end.py). What was left at a broker before stays there: the board that it was for is no more.
"""

import time
from pathlib import Path

from laterne_protocol import receipt
from laterne_provisioning import keys, order_book, orders, out_file
from laterne_provisioning.authority import Authority
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.order_book import UnderWay
from laterne_provisioning.registry import Board, Registry


def give(opened: Authority, secrets: keys.Secrets, board_id: str, reason: str, give_up: bool, path: Path) -> UnderWay:
    """Write the order that ends this board, the one under way or a new one. Raises UsageError, OperatorError."""
    out_file.require_writable(path)
    with opened.registry() as registry:
        desk = _desk(opened, registry, secrets)
        there = orders.begin_decommission(desk, board_id, reason, give_up)
        if there.step == order_book.TOLD:
            raise OperatorError(
                f"{board_id} is decommissioned already: `laterne board show {board_id}` has its receipt."
            )
        out_file.write(path, there.ordered)
        opened.sign_log(desk.enrolment_key)
        return there


def take(opened: Authority, secrets: keys.Secrets, board_id: str, path: Path) -> Board:
    """The board after the receipt in this file. Raises UsageError, OperatorError; BoardRefuses: it is as it was."""
    try:
        with path.open("rb") as file:
            body = file.read(receipt.MAX_RECEIPT_BYTES + 1)
    except OSError as why:
        raise UsageError(f"The receipt cannot be read: {why.strerror}: {path}") from why
    with opened.registry() as registry:
        desk = _desk(opened, registry, secrets)
        board = registry.board(board_id)
        if board is None:
            raise UsageError(f"{board_id} is not in the registry: see `laterne board list`.")
        if any(done.act == order_book.DECOMMISSION and done.body == body for done in board.receipts):
            return board  # it was taken in before
        there = desk.book.under_way(board_id)
        if there is None or there.act != order_book.DECOMMISSION:
            raise UsageError(f"No order that ends {board_id} is under way: see `laterne board show {board_id}`.")
        if not orders.is_receipt(board, there.ordered, body):
            raise OperatorError(
                f"{path} is not the receipt of {board_id} for the order that is under way: it is damaged, for another "
                "order, or not signed by that board. Nothing has changed."
            )
        orders.finish(desk, orders.take_receipt(desk, there, body))
        opened.sign_log(desk.enrolment_key)
        after = registry.board(board_id)
        assert after is not None
        return after


def _desk(opened: Authority, registry: Registry, secrets: keys.Secrets) -> orders.Desk:
    return orders.Desk(
        opened,
        registry,
        opened.signing_key("order", secrets),
        opened.signing_key("enrolment", secrets),
        lambda: int(time.time()),
    )
