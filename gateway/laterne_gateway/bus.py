"""The bus: asks the boards of one line, one after the other. Nobody else ever starts on a line (protocol/README.md, 3).

Each board is a contact with a moment when it is due. The one that is due longest is asked next; so boards with a
backlog take turns, and one question after the other goes out while there is anything to fetch. A board that does not
answer is asked less and less often: dead boards must not eat the time of the living. A handshake takes a board
seconds: its link (sessions) says when its next step is due, and the others are asked in between.

What is asked next at an address:

    no session, none wanted     hello in the clear: is anybody there, must it be enrolled?
    a handshake step is due     that step
    an order for this board     the order, or that its receipt has arrived (orders)
    a session, board not known  hello in the session: which boot, which release, which trust?
    it can follow to a newer    that trust, until the board has judged it; nothing else is asked meanwhile
        trust
    otherwise                   a poll in the session

Updates (updates.py) have what is left of a line. While no question of the above is due, parts of a release go to the
board whose turn it is, as much as BURST_S takes, with the question how far it is; so no report waits longer than
that. On a line where something is always due, one such burst goes out each UPDATE_WITHIN_S all the same; on a bus,
where others may have something to say at any time, SHARE of the time is the most that updates get.

How each is asked and what its answer means is questions.py; how a contact is asked at all is contact.py.
"""

import asyncio
import contextlib
import logging

from laterne_gateway.backoff import Backoff
from laterne_gateway.clock import Clock
from laterne_gateway.contact import UNKNOWN_PAUSE_S, Asking, Contact
from laterne_gateway.exchange import BITS_A_BYTE, Exchange
from laterne_gateway.health import Health
from laterne_gateway.inbox import Inbox
from laterne_gateway.orders import Orders
from laterne_gateway.questions import Questions
from laterne_gateway.roster import RosterKeeper
from laterne_gateway.serial_line import LineLost, SerialLine
from laterne_gateway.sessions import Sessions
from laterne_gateway.updates import Updates
from laterne_protocol import frame

log = logging.getLogger("laterne")


# A board is heard at least this often: it shows that it lives, its clock is compared, and a report that closed early
# (full, or an event) is fetched. 32 boards on a bus: 5 s, a third of a line of 19,200 baud.
POLL_WITHIN_S, POLL_WITHIN_A_BOARD_S = 2.0, 0.16
SILENT_CAP_S = 5.0  # how often a dead board alone on its line is asked
SILENT_CAP_A_BOARD_S = 2.0  # on a bus with n boards every 2n s: at 0.6 s each, 30 % of the line if all but one are dead
TURN_WITHIN_S = 10.0  # so often an idle line comes round: service.py sees that it does not hang
BURST_S = 0.5  # a block of 4,096 bytes and its frames take 0.38 s at 115,200 baud
LEAST_BURST_BYTES = 900  # one part: at 9,600 baud it takes a second
UPDATE_WITHIN_S = 5.0
SHARE = 0.8  # of the time of a bus
REOPEN_BASE_S, REOPEN_CAP_S = 0.5, 5.0  # an adapter that is plugged in again serves within 5 s


class Bus:
    def __init__(
        self,
        line: SerialLine,
        addresses: tuple[int, ...],
        roster: RosterKeeper,
        sessions: Sessions,
        inbox: Inbox,
        orders: Orders,
        updates: Updates,
        clock: Clock,
        health: Health,
    ) -> None:
        self._line = line
        self._exchange = Exchange(line, clock, health)
        self._subject = f"line {line.name}"
        self._roster = roster
        self._orders = orders
        self._clock = clock
        self._health = health
        cap_s = max(SILENT_CAP_S, SILENT_CAP_A_BOARD_S * len(addresses))
        poll_within_s = max(POLL_WITHIN_S, POLL_WITHIN_A_BOARD_S * len(addresses))
        self._asking = Asking(line.name, self._exchange, poll_within_s, health)
        self._questions = Questions(
            line.name, self._asking, poll_within_s, sessions, inbox, orders, updates, clock, health
        )
        self._contacts = [
            Contact(address, sessions.link(line.name, address), Backoff(1.0, cap_s, floor_s=0.5))
            for address in addresses or (frame.ANY_BOARD,)
        ]
        self._burst_bytes = max(LEAST_BURST_BYTES, int(line.baud / BITS_A_BYTE * BURST_S))
        self._updates_rest_until_s = 0.0
        self.tried = asyncio.Event()  # the port has been opened once, or was not there
        self._given_up_until_s = 0.0  # for a technician (port_requests.py)
        self._asked = asyncio.Event()  # for the port, or to take it back
        self._free = asyncio.Event()  # the port is closed, because it was asked for

    async def run(self) -> None:
        """Asks for ever; ends when cancelled, with the port closed."""
        again = Backoff(REOPEN_BASE_S, REOPEN_CAP_S, floor_s=0.1)
        try:
            while True:
                await self._while_given_up()
                opened_s = self._clock.monotonic_s()
                self._health.progressed(self._subject)
                try:
                    await self._while_open()
                except LineLost as why:
                    self._health.count(self._subject, "lost")
                    self._health.note(self._subject, "open", False)
                    self._health.alarm(self._subject, "port", f"{why}: {why.remedy}; it is tried again")
                self.tried.set()
                if not self._is_given_up:
                    await asyncio.sleep(again.failed(self._clock.monotonic_s() - opened_s))
        finally:
            await self._line.close()

    async def _while_open(self) -> None:
        """Until the port is to be given up. Raises LineLost."""
        await self._line.open()
        try:
            self._health.note(self._subject, "open", True)
            self._health.clear(self._subject, "port")
            self.tried.set()
            opened = f"{self._subject}: open at {self._line.path}, {self._line.baud} baud"
            self._health.say(self._subject, f"opened {self._line.path} {self._line.baud}", opened)
            await self._ask_in_turn()
            self._health.note(self._subject, "open", False)
        finally:
            await self._line.close()

    @property
    def is_open(self) -> bool:
        return self._line.is_open

    async def give_up(self, for_s: float) -> bool:
        """Closes the port for so long, or until take_back(). Whether its driver has let go of it; if not, it will."""
        self._given_up_until_s = self._clock.monotonic_s() + for_s
        self._free.clear()
        self._asked.set()
        self._line.stir()
        await self._free.wait()
        return not self._line.hangs

    async def take_back(self) -> bool:
        """Opens the port again now. Whether it could be opened; if not, it is tried again."""
        if self.is_open and not self._is_given_up:
            return True
        self._given_up_until_s = 0.0
        self.tried.clear()
        self._asked.set()
        await self.tried.wait()
        return self.is_open

    @property
    def _is_given_up(self) -> bool:
        return self._given_up_until_s > self._clock.monotonic_s()

    async def _while_given_up(self) -> None:
        if not self._is_given_up:
            return
        log.info("%s: %s is given up on request", self._subject, self._line.path)
        self._health.note(self._subject, "given up", True)
        await self._line.close()  # and an open() that hangs is withdrawn
        while self._is_given_up:
            self._free.set()
            self._health.progressed(self._subject)
            self._asked.clear()
            left_s = self._given_up_until_s - self._clock.monotonic_s()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(max(left_s, 0.0), TURN_WITHIN_S)):
                    await self._asked.wait()
        self._health.note(self._subject, "given up", False)
        log.info("%s: %s is taken back", self._subject, self._line.path)

    def wake(self) -> None:
        """The roster or our credential has changed: boards that were turned away are asked again at once."""
        for contact in self._contacts:
            link = contact.link
            link.handshake.forgive()
            contact.trust_due_s = 0.0
            if link.entry is None or self._roster.entry(link.entry.board) is not link.entry:
                contact.due_s = 0.0
        self._line.stir()

    async def _ask_in_turn(self) -> None:
        """Until the port is to be given up. Raises LineLost."""
        for contact in self._contacts:
            # It may be another board that is plugged in now: a session tells, and its name is asked for again.
            contact.identified, contact.answers, contact.due_s = None, False, 0.0
        while not self._is_given_up:
            self._health.progressed(self._subject)
            contact = min(self._contacts, key=Contact.next_s)
            updating = min(self._contacts, key=Contact.next_update_s)
            update_s = max(updating.next_update_s(), self._updates_rest_until_s)
            next_s, now_s = contact.next_s(), self._clock.monotonic_s()
            if min(next_s, update_s) > now_s:
                await self._line.rest(min(min(next_s, update_s) - now_s, TURN_WITHIN_S))
                continue  # woken or not: look again who is due
            if next_s <= min(now_s, update_s + UPDATE_WITHIN_S):
                await self._serve(contact, now_s)
            else:
                await self._update(updating, now_s)

    async def _serve(self, contact: Contact, now_s: float) -> None:
        link = contact.link
        refused = link.check_roster()  # the roster in force decides at each question
        if refused is not None:
            pause_s = self._turn_away(contact, refused)
        elif link.handshake.due_s <= now_s:
            await self._shake_hands(contact)
            return
        elif link.session is None or link.entry is None:
            pause_s = await self._questions.greet(contact)
        elif (errand := self._orders.errand(link.entry.board)) is not None:
            # Before all else that is said in a session: a board whose keys we do not know yet has a receipt for us.
            pause_s = await self._questions.carry(contact, link.entry, errand)
        elif contact.identified is not link.session:
            pause_s = await self._questions.identify(contact, link.entry)
        elif (telling := self._questions.to_be_told(contact, now_s)) is not None:
            pause_s = await self._questions.tell_trust(contact, link.entry, telling)
        elif contact.told and contact.trust_due_s > now_s:
            # It judges. If the trust ends this session, anything but the trust again ends it before the answer came.
            pause_s = contact.trust_due_s - now_s
        else:
            pause_s = await self._questions.poll(contact, link.entry, now_s)
        contact.due_s = self._clock.monotonic_s() + pause_s

    async def _update(self, contact: Contact, began_s: float) -> None:
        entry = contact.link.entry
        if contact.link.check_roster() is not None or entry is None:
            contact.due_s = 0.0  # _serve() knows what to do
            return
        pause_s = await self._questions.update(contact, entry, self._burst_bytes)
        now_s = self._clock.monotonic_s()
        contact.update_due_s = now_s + pause_s
        if len(self._contacts) > 1:
            self._updates_rest_until_s = now_s + (now_s - began_s) * (1 - SHARE) / SHARE

    async def _shake_hands(self, contact: Contact) -> None:
        link = contact.link
        answer = await self._exchange.ask(
            link.handshake.question, lambda received: link.handshake.take(received) or None, 1
        )
        if answer is None:
            link.handshake.unanswered()
        else:
            contact.answers = True
            contact.silence.reset()
        farewell = link.handshake.farewell_frame()
        if farewell is not None:
            self._exchange.tell(farewell)
        if not link.handshake.is_under_way:
            # Open: ask at once. Failed, and no older session to go on with: greet the board when it is time again.
            now_s = self._clock.monotonic_s()
            contact.due_s = now_s if link.session is not None else max(now_s, link.handshake.rests_until_s)

    def _turn_away(self, contact: Contact, board: str) -> float:
        if self._roster.entry(board) is not None:
            return 0.0  # its keys are others now: hands are shaken anew
        # Its reports stay on the board: nothing is acknowledged, nothing asked for.
        revoked = self._roster.is_revoked(board)
        self._health.count(self._subject, "refused: revoked board" if revoked else "refused: unknown board")
        remedy = "is revoked and not served" if revoked else "is not in the roster: enrol it and export the roster anew"
        self._asking.say(contact, "turned away", f"{board}: line {self._line.name}: {remedy}")
        return UNKNOWN_PAUSE_S
