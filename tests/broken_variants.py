"""What is broken on purpose, one thing at a time, and which sweep must notice it.

hil_tests/test_broken_variants_are_caught.py breaks a copy of the tree in each of these ways. The good text
stands in the source once: when it changes there, it is said anew here.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """What is broken: in `file` each good text becomes a bad one. test: what must fail, saying `caught` (a pattern).

    faults: so many times the quick sweep's cases are enough to see it. quick: tried in every run, not only in a soak.
    """

    file: str
    breaks: tuple[tuple[str, str], ...]
    test: str
    caught: str
    faults: float = 1.0
    quick: bool = True


DATABASE = "hil_tests/test_the_buffer_survives_a_power_cut_at_any_write.py"
BROKER = "hil_tests/test_broker_faults_lose_no_report.py"
BACKLOG = (
    "hil_tests/test_board_backlog_survives_a_power_cut_at_any_flash_operation.py"
    "::test_a_cut_at_any_flash_operation_loses_no_report"
)

LOST = "acknowledged up to|reports lost|no damage"  # a new start may have noticed, and states a gap

VARIANTS = {
    "acknowledged before the commit": Variant(
        "gateway/laterne_gateway/inbox.py",
        (
            (
                "return None if chain is None or chain.credential != entry.credential_digest else chain.sequence",
                "return self._intake(entry).received or None",
            ),
        ),
        DATABASE,
        LOST,
        0.2,
    ),
    "told before the commit": Variant(
        "gateway/laterne_gateway/writer.py",
        (
            (
                '            db.execute("commit")\n        except Exception as why:',
                "            self._settle(results)\n            time.sleep(0.005)\n"
                '            db.execute("commit")\n            results = []\n        except Exception as why:',
            ),
        ),
        DATABASE,
        LOST,
        0.2,
        quick=False,
    ),
    "a commit that is not synced": Variant(
        "gateway/laterne_gateway/database.py",
        (("pragma synchronous = full", "pragma synchronous = normal"),),
        DATABASE,
        LOST,
        0.2,
        quick=False,
    ),
    "the cursor before the PUBACK": Variant(
        "gateway/laterne_gateway/routes/delivery.py",
        (
            (
                "            self._sent.append(under_way)\n",
                "            self._sent.append(under_way)\n            self._buffer.delivered(self._lane, row.id)\n",
            ),
        ),
        BROKER,
        "reports lost|TimeoutError",
        0.2,
    ),
    "the newest first": Variant(
        "gateway/laterne_gateway/routes/delivery.py",
        (("row = self._ahead.popleft()\n", "row = self._ahead.pop()\n"),),
        BROKER,
        "out of order: ",
        0.2,
    ),
    "the newest first in what an outage left behind": Variant(
        "gateway/laterne_gateway/routes/delivery.py",
        (
            (
                "row = self._ahead.popleft()\n",
                "row = self._ahead.popleft() if self._pace is None else self._ahead.pop()\n",
            ),
        ),
        "hil_tests/test_a_day_without_broker_loses_no_report.py",
        "out of order in the backlog",
        quick=False,
    ),
    # Replaced in place instead, a file would be the old or the new one all the same: littlefs copies on write.
    "the rename missing": Variant(
        "firmware/laterne_firmware/store.py",
        (('    os.rename(path + ".n", path)\n', ""),),
        f"{BACKLOG}[1-clean]",
        "board, power cut: case",
    ),
    "the sequence from a counter in memory": Variant(
        "firmware/laterne_firmware/recovery.py",
        (
            (
                "    backlog.next_sequence = last + 1\n",
                "    backlog.next_sequence = report.FIRST_SEQUENCE\n",
            ),
        ),
        f"{BACKLOG}[1-clean]",
        "board, power cut: case",
    ),
    "the watchdog fed by a timer": Variant(
        "firmware/laterne_firmware/supervisor.py",
        (("            if self._all_alive():\n", "            if self._all_alive() or True:\n"),),
        "hil_tests/test_a_board_whose_task_stands_still_is_started_again.py",
        "TimeoutError",
    ),
    "ticks subtracted without their wrap": Variant(
        "firmware/laterne_firmware/clock.py",
        (("        passed = ticks_diff(ticks, self._ticks)\n", "        passed = ticks - self._ticks\n"),),
        "tests/firmware/test_clock.py",
        "wherever_ticks_begin_and_wrap",
    ),
}

PLATFORM = "hil_tests/test_sensorthings_faults_lose_no_observation.py"
TOGETHER = "hil_tests/test_gateways_that_start_together_make_each_entity_once.py"
CIVITAS = "hil_tests/test_civitas_faults_lose_no_observation.py"

# What translates for platforms.
VARIANTS |= {
    "sent again without a look": Variant(
        "gateway/laterne_gateway/routes/sta_looking.py",
        (("looked = [one for one in rows if one.maybe_there]", "looked: list[Waiting] = []"),),
        PLATFORM,
        "stored twice|TimeoutError",
        0.5,
    ),
    "passed over when it is refused": Variant(
        "gateway/laterne_gateway/routes/sta_sending.py",
        (("if not await self._source.bury(letter):", "if not letter:"),),
        PLATFORM,
        "dead >= plan.refused",
        0.5,
        quick=False,
    ),
    "what others hang on is removed": Variant(
        "gateway/laterne_gateway/routes/sta_once.py",
        (('if not isinstance(hangs, dict) or hangs.get("value") != [] or not', "if not"),),
        TOGETHER,
        "an observation is gone",
        quick=False,
    ),
    "not looked at after a Datastream was hung there": Variant(
        "gateway/laterne_gateway/routes/sta_entities.py",
        (("        if is_made:", "        if not parents:"),),
        TOGETHER,
        "observedproperty",
        quick=False,
    ),
    "an observation delivered when it was sent": Variant(
        "gateway/laterne_gateway/routes/civitas.py",
        (
            (
                '            self._client.send(self._topic, payload, b"", taken, refused=refused)\n',
                '            self._client.send(self._topic, payload, b"", taken, refused=refused)\n'
                "            self._route.note_taken(sent.under_way, within, number, nobody_listens=False)\n",
            ),
        ),
        CIVITAS,
        "TimeoutError|wanted|plan.refused",
        0.5,
    ),
    "what is refused for its content goes again whole": Variant(
        "gateway/laterne_gateway/routes/civitas.py",
        (("        if reason not in ABOUT_CONTENT:", "        if reason:"),),
        CIVITAS,
        "TimeoutError",
        0.5,
        quick=False,
    ),
}


CHOICE = "hil_tests/test_a_board_chooses_its_slot.py::test_"
CUTS = "hil_tests/test_slots_survive_a_power_cut_at_any_flash_operation.py::test_a_cut_at_any_flash_operation_leaves_a"
LOADER = "firmware/laterne_firmware/loader.py"

# What starts releases, each from the list in which updaters have failed elsewhere.
VARIANTS |= {
    "a power cut counted as a crash": Variant(
        LOADER,
        (("        if by_power:\n            state.power_ons", "        if not state:\n            state.power_ons"),),
        CHOICE + "twenty_power_cuts_in_a_row_do_not_roll_a_release_back_and_thirty_three_do",
        "power_ons",
    ),
    "power cuts without a limit": Variant(
        LOADER,
        (("        if state.power_ons >= MAX_POWER_ONS:", "        if state.power_ons >= 255:"),),
        CHOICE + "twenty_power_cuts_in_a_row_do_not_roll_a_release_back_and_thirty_three_do",
        "NEW NEW from /b",
    ),
    "a slot below the floor is tried": Variant(
        LOADER,
        (("        if entry is None or entry[2] < state.floor:", "        if entry is None:"),),
        CHOICE + "a_release_below_the_floor_is_not_tried",
        "NEW NEW from /b",
        quick=False,
    ),
    "no watchdog before a trial": Variant(
        LOADER,
        (("_check(state, slot, watchdog())", "_check(state, slot, None)"),),
        CHOICE + "a_release_that_hangs_while_it_is_imported_is_started_again_by_the_watchdog",
        "TimeoutError",
        quick=False,
    ),
    "crashes of the active release without a limit": Variant(
        LOADER,
        (("    elif state.attempts >= MAX_CRASHES:", "    elif state.attempts >= 255:"),),
        CUTS + "_whole_release_that_runs[the active release crashes again and again]",
        "TimeoutError|Error: without a cut",
        quick=False,
    ),
    "sizes checked and no hashes": Variant(
        "firmware/laterne_firmware/slot_check.py",
        (
            (
                '                if (yield from _digest(folder + "/" + path, piece)) != (digest, size):',
                '                if (yield from _digest(folder + "/" + path, piece))[1] != size:',
            ),
        ),
        CUTS + "_whole_release_that_runs[a trial whose slot is damaged]",
        "NEW NEW from /b|without a cut",
    ),
    "a slot that is armed stays confirmed": Variant(
        "firmware/laterne_firmware/slots.py",
        (("        self.confirmed = [name for name in self.confirmed if name != slot]\n", ""),),
        "tests/firmware/test_slots.py",
        "takes_away_that_the_slot_was_confirmed",
        quick=False,
    ),
    "a flash that cannot be mounted is formatted": Variant(
        "firmware/frozen/_boot.py",
        (("    if is_blank(flash):", "    if flash:"),),
        "hil_tests/test_a_flash_that_cannot_be_mounted.py::test_an_interpreter_of_ours_runs_the_rescue_leaves_the_flash"
        "_and_goes_on_when_it_can_be_read",
        "TimeoutError",
        quick=False,
    ),
    "an empty root is taken for a new chip": Variant(
        "firmware/frozen/_boot.py",
        (('    if not list(volume.ilistdir("/")) and', "    if not flash and"),),
        "hil_tests/test_a_flash_that_cannot_be_mounted.py::test_a_young_board_that_sees_the_empty_root_of_its_formatting"
        "_again_writes_nothing",
        "TimeoutError",
        quick=False,
    ),
    "a flash that refuses a number ends every start": Variant(
        "firmware/laterne_firmware/recovery.py",
        (("    except OSError as why:\n        # Worn out", "    except WireError as why:\n        # Worn out"),),
        "hil_tests/test_a_bad_block_of_the_flash_leaves_a_board_that_answers.py::test_a_board_whose_root_is_worn_out"
        "_takes_no_readings_and_delivers_what_it_has",
        "TimeoutError",
        quick=False,
    ),
    "the oldest segment is lost in silence": Variant(
        "firmware/laterne_firmware/recovery.py",
        (("    if segments and gone and", "    if not segments and gone and"),),
        "hil_tests/test_a_bad_block_loses_no_report_in_silence.py",
        "are lost in silence",
        quick=False,
    ),
    "a trial without an end": Variant(
        "firmware/laterne_firmware/app.py",
        (("            if now_ms > self._trial_ms:", "            if now_ms < 0:"),),
        CHOICE + "a_release_that_kills_the_link_is_rolled_back_by_its_own_clock_and_the_board_answers_again",
        "TimeoutError",
        quick=False,
    ),
    "a trial confirmed by its clock instead of its gateway": Variant(
        "firmware/laterne_firmware/app.py",
        (
            (
                "                machine.reset()\n        elif self._counted",
                "                from laterne_firmware import running\n\n"
                "                running.confirm(self._identity, self._identity.release)\n        elif self._counted",
            ),
        ),
        CHOICE + "a_release_that_kills_the_link_is_rolled_back_by_its_own_clock_and_the_board_answers_again",
        "TimeoutError",
        quick=False,
    ),
}

FORGED = "hil_tests/test_a_board_installs_only_what_it_must.py"

# What only a board with sessions can tell, or the protocol.
VARIANTS |= {
    "flash is written before the signatures are checked": Variant(
        "firmware/laterne_firmware/updating.py",
        (
            (
                "        # Work as orders are, for seconds,",
                "        from laterne_firmware.store import make_directory\n\n"
                '        make_directory("/" + self.slot)\n        # Work as orders are, for seconds,',
            ),
        ),
        FORGED,
        "nobody has signed it",
    ),
    "a path that leads out of the slot": Variant(
        "protocol/laterne_protocol/release_index.py",
        (('if not part or part[0] == "." or', "if not part or"),),
        "tests/gateway/test_update_attacks.py",
        "a_path_out_of_the_slot_is_refused",
    ),
    "an order's nonce not compared": Variant(
        "firmware/laterne_firmware/release_orders.py",
        (("        _refuse_if(nonce != sessions.nonce, receipt.OLD_NONCE)\n", ""),),
        FORGED,
        "OLD_NONCE",
    ),
    "flash is written while parts may come": Variant(
        "firmware/laterne_firmware/updating.py",
        (
            (
                "        self._have = end\n",
                "        self._have = end\n        if end < data.length:\n"
                "            from laterne_firmware.store import replace\n\n"
                '            replace("/x", bytes(2048))\n',
            ),
        ),
        "hil_tests/test_a_busy_flash_costs_a_question_and_no_report.py::test_no_byte_of_a_release_meets_a_busy_flash",
        "lost <=",
    ),
    "the algorithm taken from the message": Variant(
        "protocol/laterne_protocol/cose.py",
        (("algorithm not in (ESP256, ES256)", "not isinstance(algorithm, int)"),),
        "tests/protocol/test_attacks.py::test_an_object_with_another_algorithm_is_refused_though_its_signature_is_right",
        "DID NOT RAISE",
    ),
}
